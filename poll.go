package session

import (
	"context"
	"sync"

	"github.com/coatcheck/session/internal/storectx"
)

// polls let all requests of this process that wait for a lease of the same session share one poll
// of the store.
type polls struct {
	mu sync.Mutex
	of map[string]*poll // by the session's id
}

// A poll is the polling of one session, while requests wait for it.
type poll struct {
	polls   *polls
	id      string
	members int
	tries   int       // number of looks so far, which become less frequent
	now     *pollLook // the look that the requests wait for, or nil
}

// A pollLook is one load of the session.
type pollLook struct {
	done    chan struct{} // closed when the load has ended
	began   bool          // the store was asked: a request that joins now may have a newer record
	isKnown bool          // rec and err are the store's answer
	rec     *Record
	err     error
}

// join adds a waiting request.
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

// leave removes a waiting request. It does nothing if p is nil.
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

// next waits for the next look and returns its result. The first request that waits makes the
// look within its own ctx; if its ctx ends first, another request makes one.
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

// look makes a look. If ctx ends first, or the store panics, the result is not known.
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
	look.isKnown = err == nil || ctx.Err() == nil // otherwise ctx may have ended the load
	look.rec, look.err = rec, err
	return rec, err
}
