package simulate

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing/synctest"
	"time"
)

// A scheduler lets one goroutine run at a time. Each goroutine parks at its start, before
// each call of the store, and after each wait; when all are parked or wait, the scheduler
// resumes one of the parked ones, by the seed. If none is parked, time passes.
type scheduler struct {
	rng   *rand.Rand
	tasks int // started so far

	mu     sync.Mutex
	parked []parked
	live   int           // tasks that have not ended
	signal chan struct{} // tells run that a goroutine has parked or ended
	over   bool          // nothing parks any more
}

// parked is a goroutine that waits for its turn.
type parked struct {
	place
	resume chan struct{}
}

// A place says where a goroutine has parked, so that the order of the parked ones does
// not depend on the order in which they came.
type place struct {
	task    int // 0: a goroutine of a Manager
	process int
	call    string
	session int
}

func (a place) compare(b place) int {
	return cmp.Or(cmp.Compare(a.task, b.task), cmp.Compare(a.process, b.process), cmp.Compare(a.call, b.call), cmp.Compare(a.session, b.session))
}

func newScheduler(seed uint64) *scheduler {
	return &scheduler{rng: rand.New(rand.NewPCG(seed, 1)), signal: make(chan struct{}, 1)}
}

// start starts a task, which must be done by a goroutine that runs alone.
func (s *scheduler) start(f func(task int)) {
	s.tasks++
	task := s.tasks
	s.mu.Lock()
	s.live++
	s.mu.Unlock()
	go func() {
		defer func() {
			s.mu.Lock()
			s.live--
			s.mu.Unlock()
			s.tell()
		}()
		s.park(place{task: task, call: "start"})
		f(task)
	}()
}

func (s *scheduler) tell() {
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

// park waits for the goroutine's turn.
func (s *scheduler) park(at place) {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return
	}
	p := parked{at, make(chan struct{})}
	s.parked = append(s.parked, p)
	s.mu.Unlock()
	s.tell()
	<-p.resume
}

// sleep waits until d has passed and it is the goroutine's turn. No two goroutines wake
// at the same nanosecond, but by chance.
func (s *scheduler) sleep(task int, d time.Duration) {
	time.Sleep(d + time.Duration(s.rng.Int64N(int64(time.Microsecond))))
	s.park(place{task: task, call: "wake"})
}

// run resumes goroutines until all tasks have ended and nothing is parked.
func (s *scheduler) run() {
	for {
		synctest.Wait()
		s.mu.Lock()
		switch {
		case len(s.parked) > 0:
			slices.SortFunc(s.parked, func(a, b parked) int { return a.compare(b.place) })
			i := s.rng.IntN(len(s.parked))
			next := s.parked[i]
			s.parked = slices.Delete(s.parked, i, i+1)
			s.mu.Unlock()
			close(next.resume)
		case s.live > 0:
			s.mu.Unlock()
			<-s.signal
		default:
			s.over = true
			s.mu.Unlock()
			return
		}
	}
}

// taskKey is the context key of an exchange.
type taskKey struct{}

// placeOf returns the place of a goroutine that works for the request of ctx.
func placeOf(ctx context.Context, process int, call string, session int) place {
	at := place{process: process, call: call, session: session}
	if x, ok := ctx.Value(taskKey{}).(*exchange); ok {
		at.task = x.task
	}
	return at
}
