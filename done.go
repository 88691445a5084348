package session

import (
	"context"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/storectx"
	"github.com/coatcheck/session/internal/watch"
)

// Done returns a channel that is closed when the session has ended: by Logout,
// Revoke and its like, because its time was up, or because it was given to
// another user. It is for long requests (a WebSocket, an event stream), which
// learn of it at once if this Manager ended the session, and otherwise (another
// process did it, or another Manager over the same Store) within
// Options.WatchEvery. That costs one Load of the session each time, however many
// requests watch it, and of all sessions at most 64 Loads run at once. A store that fails does not close it: that
// is asked again.
//
// It is closed too when another request has renewed the session explicitly (Renew,
// Remember or a Login of the same user) and Options.RenewGrace is over, or at once if
// the request's token had ended before that by an automatic renewal: a stream
// that was opened with a stolen token ends then. An automatic renewal does not
// close it, and neither does a renewal by this request. With Options.Tokens no
// renewal does; Done is closed when the other program has given the session to another
// user, or has logged the user out.
//
// Without a stored session it is closed already. While the store failed to load
// the session it stays open, and so it does once the handler has returned:
// whoever hands his connection to a goroutine waits for that before he returns.
// Being watched is no use of the session; a message of the user's is, and says so
// by Save. A session that List returned is watched until List's ctx is done.
func (s *Session) Done() <-chan struct{} {
	for {
		st := s.use()
		switch {
		case !st.stored.isKnown():
			return make(chan struct{})
		case st.record() == noRecord:
			return closed
		}
		w := s.watcher.Load()
		switch {
		case w == noWatcher:
			return make(chan struct{})
		case w != nil && w.ID() == st.stored.rec.ID:
			return w.Done()
		}
		next := s.m.watch.Add(st.holder(), st.stored.frozenUntil)
		if !s.watcher.CompareAndSwap(w, next) {
			s.m.watch.Remove(next) // another goroutine was faster
			continue
		}
		s.m.watch.Remove(w)
		if now := s.state.Load(); now.stored.ref.Key != st.stored.ref.Key && now.stored.status == statusLive {
			s.m.watch.Rekey(next, now.stored.ref.Key, body.ExplicitKey(now.stored.rec.Data)) // made since by this request
		}
		if s.source == nil {
			context.AfterFunc(s.ctx, func() { s.m.watch.Remove(next) })
		}
		return next.Done()
	}
}

// noWatcher is the watcher of a request whose handler has returned.
var noWatcher = new(watch.Watcher)

// unwatch is for the end of the request.
func (s *Session) unwatch() {
	if w := s.watcher.Swap(noWatcher); w != noWatcher {
		s.m.watch.Remove(w)
	}
}

var closed = make(chan struct{})

func init() { close(closed) }

// holder returns what the watch has to know of a live session.
func (st *state) holder() watch.Holder {
	h := watch.Holder{ID: st.stored.rec.ID, Key: st.stored.ref.Key, User: st.stored.rec.User, Since: st.loaded}
	if st.stored.frozen == nil {
		h.Explicit = body.ExplicitKey(st.stored.rec.Data)
	}
	return h
}

// check asks the store for a session whose end requests wait for: see [watch.Check].
func (m *Manager) check(c *storectx.Context, id string) (answer func(*watch.Holder) (watch.Status, time.Time)) {
	ctx := context.Background()
	defer func() {
		if v := recover(); v != nil { // outside any request nothing else does
			m.log.ErrorContext(ctx, "session: Done: the store or OnEvent panicked", "panic", v)
		}
	}()
	rec, err := m.load(c, id)
	switch {
	case err != nil && c.Err() != context.Canceled:
		m.emit(ctx, EventStoreFailed, &Record{ID: id}, err)
		return nil
	case err != nil:
		return nil
	case !isLive(rec):
		return func(*watch.Holder) (watch.Status, time.Time) { return watch.StatusEnded, time.Time{} }
	}
	now := time.Now()
	return func(h *watch.Holder) (watch.Status, time.Time) {
		switch {
		case isTaken(rec, h.User):
			return watch.StatusEnded, time.Time{}
		case body.HasAccess(rec.Data, h.Key, now), body.ExplicitKey(rec.Data) == h.Explicit:
			return watch.StatusAlive, time.Time{}
		}
		frozen, _ := body.FrozenFor(rec.Data, h.Key, now)
		return watch.StatusReplaced, frozen.Until
	}
}
