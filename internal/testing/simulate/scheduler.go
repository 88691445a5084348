package simulate

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// A scheduler runs one goroutine at a time. Each goroutine parks at its start, before each store
// call, and after each wait. When all are parked or wait, the scheduler resumes one of the parked
// ones, determined by the seed. If none is parked, virtual time passes.
type scheduler struct {
	rng   *rand.Rand
	tasks int // tasks started so far

	mu     sync.Mutex
	parked []parked
	live   int           // tasks that have not ended
	signal chan struct{} // signals to run that a goroutine has parked or ended
	over   bool          // the run has ended: no goroutine parks
	turns  int           // number of resumed goroutines

	// complete sets the numbers in a place. A goroutine cannot set them when it parks, because the
	// running goroutine may be changing the tables that contain the numbers.
	complete func(at *place)
}

// parked is a goroutine that waits for its turn.
type parked struct {
	place
	resume chan struct{}
}

// A place is where a goroutine has parked. It sorts the parked goroutines independently of the
// order in which they parked.
type place struct {
	task    int // 0: a goroutine of a Manager
	process int
	manager *session.Manager // or nil
	call    string
	id      string // id of a session, or ""
	session int    // number of that session
	turn    int    // value of turns when the goroutine parked
}

func (a place) compare(b place) int {
	return cmp.Or(cmp.Compare(a.task, b.task), cmp.Compare(a.process, b.process), cmp.Compare(a.call, b.call),
		cmp.Compare(a.session, b.session), cmp.Compare(a.turn, b.turn))
}

func newScheduler(seed uint64) *scheduler {
	return &scheduler{rng: rand.New(rand.NewPCG(seed, 1)), signal: make(chan struct{}, 1), complete: func(*place) {}}
}

// start starts a task in a goroutine of its own, which the scheduler runs alone.
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

// park waits for the turn of the goroutine.
func (s *scheduler) park(at place) {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return
	}
	at.turn = s.turns
	p := parked{at, make(chan struct{})}
	s.parked = append(s.parked, p)
	s.mu.Unlock()
	s.tell()
	<-p.resume
}

// sleep waits until d has passed and it is the turn of the goroutine. A random part makes it
// unlikely that two goroutines wake at the same nanosecond.
func (s *scheduler) sleep(task int, d time.Duration) {
	time.Sleep(d + time.Duration(s.rng.Int64N(int64(time.Microsecond))))
	s.park(place{task: task, call: "wake"})
}

// run resumes goroutines until all tasks have ended, and then, for some hours, the remaining
// goroutines of the Managers.
func (s *scheduler) run() {
	var end <-chan time.Time
	for {
		synctest.Wait()
		s.mu.Lock()
		switch {
		case len(s.parked) > 0:
			for i := range s.parked {
				s.complete(&s.parked[i].place)
			}
			slices.SortFunc(s.parked, func(a, b parked) int { return a.compare(b.place) })
			i := s.rng.IntN(len(s.parked))
			next := s.parked[i]
			s.parked = slices.Delete(s.parked, i, i+1)
			s.turns++
			s.mu.Unlock()
			close(next.resume)
		case s.live > 0:
			s.mu.Unlock()
			<-s.signal
		default:
			s.mu.Unlock()
			if end == nil {
				end = time.After(2 * time.Hour)
			}
			select {
			case <-s.signal:
			case <-end:
				s.mu.Lock()
				s.over = true
				s.mu.Unlock()
				return
			}
		}
	}
}

// taskKey is the context key of an exchange. actorKey is that of the number of a task that calls a
// Manager outside of a request.
type (
	taskKey  struct{}
	actorKey struct{}
)

// placeOf returns the place of a goroutine that works for the request of ctx.
func placeOf(ctx context.Context, process int, call, id string) place {
	at := place{process: process, call: call, id: id}
	if x, ok := ctx.Value(taskKey{}).(*exchange); ok {
		at.task = x.task
	} else if task, ok := ctx.Value(actorKey{}).(int); ok {
		at.task = task
	}
	return at
}
