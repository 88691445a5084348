package session

import (
	"cmp"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/storectx"
)

// end ends the session with this id, and retries on conflict. If a Login has replaced the
// session by another one, end ends that one. It returns the record that it ended. If there was no
// live session, or only one of another user than user ("": any user), it returns nil, and the
// reason for which the session had ended before, if that is known. If rec, the record as the
// caller knows it, is not nil, end does not load it first.
func (m *Manager) end(c *storectx.Context, id, user string, why body.Reason, rec *Record) (_ *Record, before body.Reason, _ error) {
	n := contender{queues: &m.queues, c: c, id: id, isEnding: true}
	defer func() { n.leave() }()
	newer, err := n.join()
	if err != nil {
		return nil, "", err
	}
	rec = cmp.Or(newer, rec)
	for {
		if rec == nil {
			if rec, err = loadRecord(c, m.store, n.id); err != nil || rec == nil {
				return nil, "", err
			}
		}
		status, successor, reason := statusOf(rec)
		switch {
		case status == statusEnded:
			return nil, reason, nil
		case status == statusReplaced:
			n.leave()
			n, rec = contender{queues: &m.queues, c: c, id: successor, isEnding: true}, nil
			continue
		case user != "" && rec.User != user:
			return nil, "", nil
		}
		if err = n.save(tombstone(rec, why, ""), rec.Version); err == nil {
			m.watch.Ended(n.id)
			return rec, "", nil
		}
		if rec, err = n.reread(err); err != nil || rec == nil {
			return nil, "", err
		}
	}
}

// end commits a pending Logout.
func (t *tx) end() error {
	st := t.stored
	var known, last *Record
	var before body.Reason
	if st.status == statusLive {
		known = st.rec
	}
	ids, err := t.idsToEnd()
	if err != nil {
		return err
	}
	for _, id := range ids {
		rec, reason, err := t.m.end(t.context(), id, "", body.ReasonLogout, known)
		if err != nil {
			return err
		}
		before = reason
		if rec != nil {
			last = rec
			t.note(EventLoggedOut, rec, nil)
		}
	}
	t.pending.logout = false
	if st.err() == ErrReplaced && !st.wasLoaded {
		return nil // the request had no session
	}
	if before == "" && last == nil {
		before = st.reason
	}
	t.lose(statusEnded)
	if st.mayHaveNewerCookie(last, before) {
		return nil
	}
	t.stored = stored{status: statusNone}
	if t.carried != carriedNone {
		t.cookie.action = cookieDelete
	}
	return nil
}

// mayHaveNewerCookie reports whether the client may have a newer cookie than the one that a
// Logout would delete. last is the record that the Logout has ended, or nil if the session had
// ended before, for the reason given by before.
func (st *stored) mayHaveNewerCookie(last *Record, before body.Reason) bool {
	switch {
	case st.status == statusNone, st.status == statusAmbiguous, st.status == statusUnproven && last != nil:
		return false
	case last != nil:
		return st.frozen != nil || st.status != statusLive || body.ExplicitKey(last.Data) != body.ExplicitKey(st.rec.Data)
	}
	return before != body.ReasonRevoke // ended by this request, or from another device
}

// idsToEnd returns the ids of the sessions that a Logout ends: all that the tokens in the request
// open. If there are more than maxCandidates, they are verified only here. A request that arrived
// after its session had ended or had been replaced ends no session: a planted or stolen token must
// not sign out the user who has logged in since.
func (t *tx) idsToEnd() (ids []string, _ error) {
	switch st := &t.stored; {
	case st.status == statusAmbiguous && st.twins == nil:
		return t.findAll()
	case st.status == statusAmbiguous:
		return st.twins, nil
	case st.status == statusLive:
		ids = append(ids, st.rec.ID)
	case st.status == statusUnproven, st.status == statusReplaced && st.wasLoaded:
		ids = append(ids, st.ref.ID)
	}
	return ids, nil
}
