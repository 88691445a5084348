package session

import (
	"context"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/storectx"
	"github.com/coatcheck/session/internal/watch"
)

// Done returns a channel that is closed when the session has ended: by Logout, by one of the
// Revoke methods, because it expired, or by a Login of another user. It is for long-lived
// requests such as WebSockets and event streams. The channel is closed at once if this Manager
// has ended the session. If another Manager or process has, the channel is closed within
// [Options].WatchEvery, which costs one Load of the session in each interval, however many
// requests watch it. At most 64 such Loads run at once. A failing store does not close the
// channel: the store is asked again.
//
// The channel is also closed when another request has renewed the session explicitly (Renew,
// Remember or a Login of the same user) and Options.RenewGrace has passed, so that a stream that
// was opened with a stolen token ends. A request whose token an automatic renewal had ended before
// gets no grace: its channel is closed at once. Neither an automatic renewal nor a renewal by this
// request closes the channel. With Options.Tokens no renewal closes the channel; it is closed when
// the other program has given the session to another user, or has logged the user out.
//
// If no session is stored, the returned channel is closed. If the store failed to load the session,
// the channel stays open. The channel also stays open after the handler has returned, so a handler
// that hands its connection to a goroutine has to wait for that goroutine.
//
// An open channel is not a use of the session. A message of the user is one: call Save when it
// arrives.
func (s *Session) Done() <-chan struct{} {
	if s.refuses("Done") != nil {
		return closed
	}
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
			s.m.watch.Remove(next) // another goroutine has added one
			continue
		}
		s.m.watch.Remove(w)
		if now := s.state.Load(); now.stored.ref.Key != st.stored.ref.Key && now.stored.status == statusLive {
			s.m.watch.Rekey(next, now.stored.ref.Key, body.ExplicitKey(now.stored.rec.Data)) // this request has made a key meanwhile
		}
		return next.Done()
	}
}

// noWatcher is the watcher of a request whose handler has returned.
var noWatcher = new(watch.Watcher)

// unwatch stops the watch of the session at the end of the request.
func (s *Session) unwatch() {
	if w := s.watcher.Swap(noWatcher); w != noWatcher {
		s.m.watch.Remove(w)
	}
}

var closed = make(chan struct{})

func init() { close(closed) }

// holder returns the key and user that the watch compares with the stored session.
func (st *state) holder() watch.Holder {
	h := watch.Holder{ID: st.stored.rec.ID, Key: st.stored.ref.Key, User: st.stored.rec.User, Since: st.loaded}
	if st.stored.frozen == nil {
		h.Explicit = body.ExplicitKey(st.stored.rec.Data)
	}
	return h
}

// check loads a watched session and returns a function that compares it with each watcher: see
// [watch.Check].
func (m *Manager) check(c *storectx.Context, id string) (answer func(*watch.Holder) (watch.Status, time.Time)) {
	ctx := context.Background()
	defer func() {
		if v := recover(); v != nil { // this goroutine belongs to no request, whose server would recover the panic
			m.log.ErrorContext(ctx, "session: Done: the store or OnEvent panicked", "panic", v)
		}
	}()
	rec, err := loadRecord(c, m.store, id)
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
