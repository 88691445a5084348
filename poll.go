package session

import (
	"context"
	"sync"

	"github.com/coatcheck/session/internal/storectx"
)

// polls let all requests of a session in this process that wait for another's lease
// share one look at the store.
type polls struct {
	mu sync.Mutex
	of map[string]*poll // by the session's id
}

// A poll is of one session, for as long as a request waits for it.
type poll struct {
	polls   *polls
	id      string
	members int
	tries   int       // since it began: the looks become rarer
	now     *pollLook // that is waited for, or nil
}

// A pollLook is one look at the store.
type pollLook struct {
	done    chan struct{} // closed: it is over
	began   bool          // the store was asked: who comes now may know more
	isKnown bool          // it has found something
	rec     *Record
	err     error
}

// join adds a request that waits.
func (ps *polls) join(id string) *poll {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.of[id]
	if p == nil {
		if ps.of == nil {
			ps.of = map[string]*poll{}
		}
		p = &poll{polls: ps, id: id}
		ps.of[id] = p
	}
	p.members++
	return p
}

// leave removes a request. A nil p is none.
func (ps *polls) leave(p *poll) {
	if p == nil {
		return
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p.members--; p.members == 0 {
		delete(ps.of, p.id)
	}
}

// next waits for the next look and returns what it has found. The first that waits
// makes the look, in its own time; if it leaves before that, another makes one.
func (p *poll) next(ctx context.Context, m *Manager) (*Record, error) {
	for {
		p.polls.mu.Lock()
		look, isOther := p.now, p.now != nil
		if !isOther {
			look = &pollLook{done: make(chan struct{})}
			p.now = look
			p.tries++
		}
		try, isOld := p.tries, look.began
		p.polls.mu.Unlock()
		if !isOther {
			return p.look(ctx, m, look, try)
		}
		select {
		case <-look.done:
			resumed(ctx)
		case <-ctx.Done():
			resumed(ctx)
			return nil, ctx.Err()
		}
		if look.isKnown && !isOld {
			return look.rec, look.err
		}
	}
}

// look makes a look. If ctx ends first, or the store panics, it has found nothing.
func (p *poll) look(ctx context.Context, m *Manager, look *pollLook, try int) (*Record, error) {
	defer func() {
		p.polls.mu.Lock()
		p.now = nil
		p.polls.mu.Unlock()
		close(look.done)
	}()
	if err := pause(ctx, betweenLooks, try); err != nil {
		return nil, err
	}
	p.polls.mu.Lock()
	look.began = true
	p.polls.mu.Unlock()
	c := storectx.Within(ctx, m.timeout)
	defer c.Release()
	rec, err := m.load(c, p.id)
	look.isKnown = err == nil || ctx.Err() == nil // else perhaps for want of time of its own
	look.rec, look.err = rec, err
	return rec, err
}
