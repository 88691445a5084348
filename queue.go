package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coatcheck/session/internal/storectx"
)

// queues put the commits of one session in this process one after the other, once two
// of them have met. While no commits meet, there is no queue and nothing waits: a
// queue begins with the first conflict of a session and ends with its last member.
//
// Each member hands what it has stored to the next, which so needs no load: of n
// concurrent writers each costs a load, a Save that fails, and a Save. A member that
// entered later than that Save began gets nothing: it may have loaded what another
// process has stored since, and must not go back to an older record.
type queues struct {
	entered atomic.Uint64 // members that have waited or wait
	n       atomic.Int32  // len(of)
	mu      sync.Mutex
	of      map[string]*queue // by the session's id
}

// A queue is of one session. One of its members has the turn.
type queue struct {
	endings, writers []*member // that wait; endings go first
}

// A member waits for the turn.
type member struct {
	number uint64    // counts all that have entered
	turn   chan view // gets the turn, and what the member before knows
}

// A view is a record as the store had it, or nil if that is not known.
type view struct {
	rec *Record
	at  uint64 // the number of the last member that had entered before the store was asked
}

// A turn lets its holder write a session without a conflict in this process.
type turn struct {
	of *queues
	id string
}

// exists reports whether commits of a session are in a queue.
func (qs *queues) exists(id string) bool {
	if qs.n.Load() == 0 {
		return false
	}
	qs.mu.Lock()
	defer qs.mu.Unlock()
	return qs.of[id] != nil
}

// enter waits for the turn. It returns the session's record, if the member before
// knows one that is as new as what this one may have loaded. If ctx ends first, it
// returns ctx's error.
func (qs *queues) enter(ctx context.Context, id string, isEnding bool) (*turn, view, error) {
	qs.mu.Lock()
	q := qs.of[id]
	if q == nil {
		if qs.of == nil {
			qs.of = map[string]*queue{}
		}
		qs.of[id] = &queue{}
		qs.n.Add(1)
		qs.mu.Unlock()
		return &turn{qs, id}, view{}, nil
	}
	next := &member{qs.entered.Add(1), make(chan view, 1)}
	if isEnding {
		q.endings = append(q.endings, next)
	} else {
		q.writers = append(q.writers, next)
	}
	qs.mu.Unlock()
	select {
	case last := <-next.turn:
		resumed(ctx)
		return &turn{qs, id}, last, nil
	case <-ctx.Done():
		resumed(ctx)
	}
	qs.mu.Lock()
	isNext := func(m *member) bool { return m == next }
	waiting := len(q.endings) + len(q.writers)
	q.endings, q.writers = slices.DeleteFunc(q.endings, isNext), slices.DeleteFunc(q.writers, isNext)
	left := len(q.endings)+len(q.writers) < waiting
	qs.mu.Unlock()
	if !left { // the turn came at the same moment
		(&turn{qs, id}).leave(<-next.turn)
	}
	return nil, view{}, ctx.Err()
}

// leave gives the turn to the next member, with the record as it is stored now, as far
// as that is known: if it is another, the next Save answers ErrConflict.
func (t *turn) leave(last view) {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	q := t.of.of[t.id]
	for _, waiting := range []*[]*member{&q.endings, &q.writers} {
		if len(*waiting) > 0 {
			next := (*waiting)[0]
			*waiting = (*waiting)[1:]
			if next.number > last.at {
				last = view{}
			}
			next.turn <- last
			return
		}
	}
	delete(t.of.of, t.id)
	t.of.n.Add(-1)
}

// A contender is a commit, or the ending, of a session that others may write at the
// same time. It enters the session's queue when it meets one of them.
type contender struct {
	m        *Manager
	c        *storectx.Context
	id       string // of the session
	isEnding bool   // and goes before the writers
	turn     *turn  // nil: not in the queue
	last     view
	tries    int
}

// save is Store.Save.
func (n *contender) save(rec *Record, old uint64) error {
	at := n.m.queues.entered.Load()
	err := n.m.store.Save(n.c, rec, old)
	if err == nil {
		n.last = view{rec, at}
	}
	return err
}

// load loads what the record has become.
func (n *contender) load() (err error) {
	at := n.m.queues.entered.Load()
	n.last = view{}
	rec, err := n.m.load(n.c, n.id)
	if err == nil {
		n.last = view{rec, at}
	}
	return err
}

// join enters the session's queue if there is one. It returns the session's record, or
// nil if what the contender knows may be as new.
func (n *contender) join() (*Record, error) {
	if !n.m.queues.exists(n.id) {
		return nil, nil
	}
	err := n.enter()
	return n.last.rec, err
}

// enter waits for the turn.
func (n *contender) enter() (err error) {
	if n.turn, n.last, err = n.m.queues.enter(n.c, n.id, n.isEnding); err != nil {
		return storeError("save", err)
	}
	return nil
}

// reread returns what the record has become, after a Save of it answered err: nil if
// it is gone. It returns an error if err says nothing of the record.
func (n *contender) reread(err error) (*Record, error) {
	switch {
	case !hasMoved(err):
		return nil, storeError("save", err)
	case errors.Is(err, ErrNotFound):
		n.last = view{}
		return nil, nil
	case n.turn == nil:
		if err := n.enter(); err != nil {
			return nil, err
		}
		if n.last.rec != nil {
			return n.last.rec, nil
		}
	default: // with a commit of another process
		if err := pause(n.c, betweenSaves, n.tries); err != nil {
			return nil, storeError("save", err)
		}
		n.tries++
	}
	err = n.load()
	return n.last.rec, err
}

// leave gives the turn, if there is one, to the next member of the queue.
func (n *contender) leave() {
	if n.turn != nil {
		n.turn.leave(n.last)
		n.turn = nil
	}
}

// pause sleeps before retry number try: exponential backoff from d with full jitter, capped
// at 128·d. It returns early with ctx.Err().
func pause(ctx context.Context, d time.Duration, try int) error {
	if try == 0 {
		return ctx.Err()
	}
	t := time.NewTimer(random(d << min(try, 7)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	resumed(ctx)
	return ctx.Err()
}

// betweenSaves is d of a pause after a conflict with another process.
const betweenSaves = 250 * time.Microsecond
