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

// queues serialize the commits of one session in this process after a conflict. Without a
// conflict there is no queue, and no commit waits: a queue begins with the first conflict of a
// session and ends with its last member.
//
// Each member passes the record that it has stored to the next one, which then needs no load: n
// concurrent writers cost a load, a failing Save and a successful Save each. A member that has
// entered after that Save began gets no record: it may have loaded a newer one, which another
// process has stored since.
type queues struct {
	store   Store
	entered atomic.Uint64 // the number of members that have ever entered
	n       atomic.Int32  // len(of)
	mu      sync.Mutex
	of      map[string]*queue // by the session's id
}

// A queue is the queue of one session. One of its members holds the turn.
type queue struct {
	endings, writers []*member // the waiting members; endings go first
}

// A member is a commit that waits for the turn.
type member struct {
	number uint64    // queues.entered when the member entered
	turn   chan view // receives the turn, with the record that the previous member knows
}

// A view is the record that a member has stored or loaded, or nil if it is not known.
type view struct {
	rec *Record
	at  uint64 // queues.entered when the store was called
}

// A turn is the right to write a session: no other commit in this process does.
type turn struct {
	of *queues
	id string
}

// exists reports whether there is a queue for the session with this id.
func (qs *queues) exists(id string) bool {
	if qs.n.Load() == 0 {
		return false
	}
	qs.mu.Lock()
	defer qs.mu.Unlock()
	return qs.of[id] != nil
}

// enter waits for the turn. It returns the record of the session if the previous member knows one
// that is at least as new as any that this member may have loaded. If ctx ends first, enter
// returns its error.
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
	if !left { // the turn arrived at the same time
		(&turn{qs, id}).leave(<-next.turn)
	}
	return nil, view{}, ctx.Err()
}

// leave gives the turn to the next member, with the record that this one knows. If another
// process has stored a newer one, the next Save returns ErrConflict.
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

// A contender is a commit or an ending of a session that other requests may write concurrently.
// It enters the queue of the session at its first conflict.
type contender struct {
	queues   *queues
	c        *storectx.Context
	id       string // of the session
	isEnding bool   // an ending, which goes before other commits
	turn     *turn  // nil: the contender is not in the queue
	last     view
	tries    int
}

// save calls Store.Save.
func (n *contender) save(rec *Record, old uint64) error {
	at := n.queues.entered.Load()
	err := n.queues.store.Save(n.c, rec, old)
	if err == nil {
		n.last = view{rec, at}
	}
	return err
}

// load loads the current record into last.
func (n *contender) load() (err error) {
	at := n.queues.entered.Load()
	n.last = view{}
	rec, err := loadRecord(n.c, n.queues.store, n.id)
	if err == nil {
		n.last = view{rec, at}
	}
	return err
}

// join enters the queue of the session if there is one. It returns the current record if the
// previous member knows it, otherwise nil.
func (n *contender) join() (*Record, error) {
	if !n.queues.exists(n.id) {
		return nil, nil
	}
	err := n.enter()
	return n.last.rec, err
}

// enter waits for the turn.
func (n *contender) enter() (err error) {
	if n.turn, n.last, err = n.queues.enter(n.c, n.id, n.isEnding); err != nil {
		return storeError("save", err)
	}
	return nil
}

// reread returns the current record after a Save has returned err, or nil if there is none. If
// err is neither ErrConflict nor ErrNotFound, reread returns it.
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
	default: // the conflict is with another process
		if err := pause(n.c, betweenSaves, n.tries); err != nil {
			return nil, storeError("save", err)
		}
		n.tries++
	}
	err = n.load()
	return n.last.rec, err
}

// leave gives the turn to the next member, if this contender holds it.
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

// betweenSaves is the pause before the first retry after a conflict with another process.
const betweenSaves = 250 * time.Microsecond

// hasMoved reports whether a Save was refused because the record is another one now.
func hasMoved(err error) bool {
	return !errors.Is(err, ErrIndeterminate) && (errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound))
}
