package session

import "context"

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
// close it, and neither does a renewal by this request.
//
// Without a stored session it is closed already. While the store failed to load
// the session it stays open, and so it does once the handler has returned:
// whoever hands his connection to a goroutine waits for that before he returns.
// Being watched is no use of the session; a message of the user's is, and says so
// by Save. A session that List returned is watched until List's ctx is done.
func (s *Session) Done() <-chan struct{} {
	s.lock()
	defer s.unlock()
	switch {
	case s.stored.is == unknown:
		return make(chan struct{})
	case s.visible() == noRecord:
		return closed
	case s.at == returned:
		return make(chan struct{})
	case s.watched != nil && s.watched.of.id == s.stored.rec.ID:
		return s.watched.done
	}
	s.m.watch.remove(s.watched)
	s.watched = s.m.watch.add(&s.stored, s.loaded)
	if r := s.watched; s.source == nil {
		context.AfterFunc(s.ctx, func() { s.m.watch.remove(r) })
	}
	return s.watched.done
}

// unwatch is for the end of the request. s.mu is held.
func (s *Session) unwatch() {
	s.at = returned
	if s.watched != nil {
		s.m.watch.remove(s.watched)
		s.watched = nil
	}
}

var closed = make(chan struct{})

func init() { close(closed) }
