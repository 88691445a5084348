package session

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/storectx"
)

// Concurrent requests of one process share work: polls of the store for a lease (polls), touches
// of one session (touches), and the lists that Logins make for Options.MaxPerUser (logins).

// polls let all requests of this process that wait for a lease of the same session share one poll
// of the store.
type polls struct {
	store   Store
	timeout time.Duration // Options.StoreTimeout
	mu      sync.Mutex
	of      map[string]*poll // by the session's id
}

// A poll is the polling of one session, while requests wait for it.
type poll struct {
	polls   *polls
	id      string
	members int
	tries   int       // number of looks since leases has changed, which become less frequent
	leases  string    // the leases of the session at the last look
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

// betweenLooks is the mean pause before the first look at another request's lease.
const betweenLooks = 4 * time.Millisecond

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
// look within its own ctx, and gets isOwn; if its ctx ends first, another request makes one.
func (p *poll) next(ctx context.Context) (_ *Record, isOwn bool, _ error) {
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
			rec, err := p.look(ctx, look, try)
			return rec, true, err
		}
		select {
		case <-look.done:
			resumed(ctx)
		case <-ctx.Done():
			resumed(ctx)
			return nil, false, ctx.Err()
		}
		if look.isKnown && !isOld {
			return look.rec, false, look.err
		}
	}
}

// look makes a look. If ctx ends first, or the store panics, the result is not known.
func (p *poll) look(ctx context.Context, look *pollLook, try int) (*Record, error) {
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
	c := storectx.Within(ctx, p.polls.timeout)
	defer c.Release()
	rec, err := loadRecord(c, p.polls.store, p.id)
	look.isKnown = err == nil || ctx.Err() == nil // otherwise ctx may have ended the load
	look.rec, look.err = rec, err
	if isLive(rec) {
		if leases := string(body.Value(rec.Data, body.Leases)); leases != p.leases {
			p.polls.mu.Lock()
			p.tries, p.leases = 0, leases
			p.polls.mu.Unlock()
		}
	}
	return rec, err
}

// touches are the sessions that this process is touching or has touched, so that a request that
// had loaded a session before its touch does not touch it again.
type touches struct {
	mu          sync.Mutex
	now, before map[string]lastTouch // by the session's id
}

type lastTouch struct {
	ended time.Time // zero: the touch has not ended
}

// maxTouches is how many sessions each of the two maps holds, about a megabyte.
const maxTouches = 4096

// begin reports whether a request that has loaded the session at that time has to touch it. If
// so, the caller calls end.
func (ts *touches) begin(id string, loaded time.Time) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, m := range []map[string]lastTouch{ts.now, ts.before} {
		if last, ok := m[id]; ok && (last.ended.IsZero() || !loaded.After(last.ended)) {
			return false
		}
	}
	if len(ts.now) >= maxTouches || ts.now == nil {
		ts.now, ts.before = map[string]lastTouch{}, ts.now
	}
	ts.now[id] = lastTouch{}
	return true
}

// end records the end of a touch. After a failed touch, the next request tries again.
func (ts *touches) end(id string, hasSucceeded bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	delete(ts.before, id)
	if delete(ts.now, id); hasSucceeded {
		ts.now[id] = lastTouch{ended: time.Now()}
	}
}

// logins are the logins whose users' sessions are to be limited.
type logins struct {
	mu sync.Mutex
	of map[string][]*loginLimit // by user: the logins that wait while another one lists
}

// A loginLimit is a login that waits for the decision.
type loginLimit struct {
	rec     *Record
	lists   chan struct{}   // closed when this login is to list, for all that wait
	decided chan struct{}   // closed when doomed is known
	doomed  map[string]bool // the ids of the sessions to end
}

// join adds a login. isFirst is true if no other login of the user lists, so that this one has
// to.
func (ls *logins) join(rec *Record) (l *loginLimit, isFirst bool) {
	l = &loginLimit{rec: rec, lists: make(chan struct{}), decided: make(chan struct{})}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	waiting, isListing := ls.of[rec.User]
	if ls.of == nil {
		ls.of = map[string][]*loginLimit{}
	}
	ls.of[rec.User] = append(waiting, l)
	return l, !isListing
}

// take removes and returns the waiting logins of a user. Their sessions are stored, so a list
// that begins now contains them.
func (ls *logins) take(user string) []*loginLimit {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	all := ls.of[user]
	ls.of[user] = nil
	return all
}

// next lets one of the logins list that have joined meanwhile.
func (ls *logins) next(user string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if waiting := ls.of[user]; len(waiting) > 0 {
		close(waiting[0].lists)
		return
	}
	delete(ls.of, user)
}

// abandon removes a login that no longer waits. It returns false if another login lists for it
// already.
func (ls *logins) abandon(l *loginLimit) bool {
	ls.mu.Lock()
	user := l.rec.User
	i := slices.Index(ls.of[user], l)
	if i >= 0 {
		ls.of[user] = slices.Delete(ls.of[user], i, i+1)
	}
	ls.mu.Unlock()
	select {
	case <-l.lists: // this login was to list
		ls.next(user)
	default:
	}
	return i >= 0
}
