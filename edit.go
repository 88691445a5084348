package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/storectx"
	"github.com/coatcheck/session/internal/token"
)

// Edit changes one session of a user from outside its requests, for example each session that
// [Manager.List] has returned after the user's role has changed. It calls f with the stored session
// and stores the changes. If the session has changed meanwhile, Edit calls f again with the newer
// one. f may decide by the values that it reads; it may run zero times or more, and only the
// changes of the last call are stored. f must be short and have no side effects.
//
// f may call all methods that read the session, and to change it those for values and flashes,
// Clear and EndBy. An EndBy of a time that has passed ends the session as Revoke does. Login,
// Logout, Renew, Remember, MarkPassive, Save, Reload, Done, [Key.Take], [Key.UpdateNow] and
// [Key.Refresh] need a request: they fail the Edit, and nothing is stored. The Session must not be
// used after f has returned.
//
// An Edit is not a use of the session: LastSeen and the idle end stay. It works for each session in
// the Store, even if another Manager has made its token. In-flight requests see the change as they
// see that of another request.
//
// Edit returns [ErrEnded] if the session has ended or the user has no session with this id;
// [ErrTooLarge]; an [ErrStore] if the store fails; and the error of a call that failed in f. After
// an [ErrIndeterminate] the change may have been stored. An empty user is an error. Edit takes the
// values and the deadline of ctx, not its cancellation.
func (m *Manager) Edit(ctx context.Context, user, id string, f func(*Session)) error {
	if user == "" {
		return errNoUser
	}
	t := &tx{m: m, s: m.editable(ctx)}
	defer t.deliver()
	defer t.release()
	err := t.edit(user, id, f)
	if errors.Is(err, ErrStore) {
		t.note(EventStoreFailed, &Record{ID: id, User: user}, err)
	}
	return err
}

// editable returns a Session without a state for the function of an Edit.
func (m *Manager) editable(ctx context.Context) *Session {
	s := &Session{m: m, ctx: ctx, origin: edited{}}
	s.isPassive.Store(true)
	return s
}

// edit implements Edit. After a conflict, f is called while this commit holds the turn, so that n
// concurrent Edits cost about n commits.
func (t *tx) edit(user, id string, f func(*Session)) error {
	t.within(t.s.ctx)
	rec, err := loadRecord(t.c, t.m.store, id)
	t.c.Release()
	if err != nil {
		return err
	}
	n := contender{queues: &t.m.queues, id: id}
	defer n.leave()
	for isReported := false; ; {
		if !isLive(rec) || rec.User != user {
			return ErrEnded
		}
		d, err := t.draftEdit(rec, f)
		if err != nil || d.rec == nil {
			return err
		}
		if n.c == nil { // a whole StoreTimeout for the commit, however long f took
			t.c = storectx.Within(t.s.ctx, t.m.timeout)
			n.c = t.c
			newer, err := n.join()
			if err != nil {
				return err
			}
			if newer != nil {
				rec = newer
				continue
			}
		}
		if err = n.save(d.rec, rec.Version); err == nil {
			t.hasEdited(rec, d)
			return nil
		}
		if rec, err = n.reread(err); err != nil {
			return err
		}
		if isLive(rec) && !isReported {
			isReported = true
			t.note(EventConflict, rec, nil)
		}
	}
}

// draftEdit returns the draft of rec after f. It is a tombstone if the time of an EndBy has
// passed.
func (t *tx) draftEdit(rec *Record, f func(*Session)) (d draft, err error) {
	s := t.m.editable(t.s.ctx) // a new one: a goroutine that f has left behind may use the one before
	s.state.Store(&state{stored: stored{status: statusLive, rec: rec, ref: token.Ref{ID: rec.ID}}})
	f(s)
	t.s, t.state = s, *s.state.Load()
	switch {
	case t.problem.err != nil:
		return d, t.problem.err
	case t.pending.hasEnded(time.Now()):
		return draft{rec: tombstone(rec, body.ReasonRevoke, "")}, nil
	}
	return t.draftNext(&t.pending)
}

// hasEdited notes the events of an Edit after d was stored in place of rec.
func (t *tx) hasEdited(rec *Record, d draft) {
	if !isLive(d.rec) {
		t.m.watch.Ended(rec.ID)
		t.note(EventRevoked, rec, nil)
	}
	if d.lost != nil {
		t.note(EventDropped, rec, d.lost)
	}
}

// edited is the origin of the Session that Edit passes to its function.
type edited struct{}

// tokens and allTokens implement origin: without a request there are no tokens.
func (edited) tokens() candidates     { return candidates{} }
func (edited) allTokens() []token.Ref { return nil }

// proves and skipped implement origin: an Edit needs no proof.
func (edited) proves(string, time.Time) bool { return true }
func (edited) skipped() string               { return "" }

// allows implements origin.
func (edited) allows(call string) error {
	return fmt.Errorf("session: Edit: %s is for the session of a request: Edit changes values and flashes, and Manager.Revoke ends a session", call)
}
