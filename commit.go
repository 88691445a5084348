package session

import (
	"errors"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/storectx"
)

// A commit carries out what plan says, until nothing is left to do. The
// session's changing is held, so that nobody else writes its fields; they are
// read here without mu, and written under it.
type commit struct {
	*Session
	c    *storectx.Context
	todo *pending // the session's, or what is stored without it
}

func (k commit) run() error {
	for {
		var err error
		asked := k.todo.logout || k.todo.asks()
		switch k.plan() {
		case rest:
			k.succeeded()
			return nil
		case refuse:
			return k.problem.err
		case end:
			err = k.end()
		case drop:
			err = k.drop()
		case create:
			err = k.create()
		case save:
			err = k.save()
		case replace:
			err = k.replace()
		}
		if err != nil {
			return k.failed(err, asked)
		}
	}
}

// succeeded clears a problem that only stood until now.
func (k commit) succeeded() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.problem.is == passing {
		k.problem = problem{}
	}
}

// create stores a new session and asks for its cookie.
func (k commit) create() error {
	d, err := k.first(nil)
	if err != nil {
		return err
	}
	if err := k.m.store.Create(k.c, d.rec); err != nil {
		return k.uncreated(d.rec, err)
	}
	k.install(d)
	k.limit()
	return nil
}

// uncreated tries to leave nothing behind of a Create that may have been applied.
func (k commit) uncreated(rec *Record, err error) error {
	if err = storeError("create", err); errors.Is(err, ErrIndeterminate) {
		return k.undo(rec, err) // nobody will ever hold its token
	}
	return err
}

// undo deletes a record that is not to be, and returns err. Its own deadline
// lets it do so although the store's silence has used up the commit's.
func (k commit) undo(rec *Record, err error) error {
	c := storectx.New(k.ctx, k.m.timeout)
	defer c.Release()
	_ = k.m.store.Delete(c, rec.ID) // what is left if it fails is a record whose token nobody holds
	return err
}

// save replaces the record by the next version of it. If another commit was faster,
// the changes are applied to the newer record, and the commits of this process go one
// after the other.
func (k commit) save() error {
	n := contender{m: k.m, c: k.c, id: k.stored.rec.ID}
	defer n.leave()
	newer, err := n.join()
	if err != nil {
		return err
	}
	hasMerged := newer != nil
	if hasMerged {
		k.merge(newer, false)
	}
	for k.stored.is == live {
		k.dropRenewal()
		d, err := k.next()
		if err != nil {
			return err
		}
		if d.rec == nil {
			k.install(draft{rec: k.stored.rec})
			return nil
		}
		login := k.todo.user != ""
		err = n.save(d.rec, k.stored.rec.Version)
		if err != nil && d.token != nil && errors.Is(err, ErrIndeterminate) {
			err = k.resolve(d, err)
		}
		if err == nil && body.IsTombstone(d.rec.Data) {
			k.ended()
			return nil
		}
		if err == nil {
			k.install(d)
			if n.leave(); login {
				k.limit()
			}
			return nil
		}
		if newer, err = n.reread(err); err != nil {
			return err
		}
		k.merge(newer, hasMerged)
		hasMerged = true
	}
	return nil // it has ended: the plan is another one
}

// merge continues with newer, the current record, nil if it is gone. isReported is
// whether the commit has reported a conflict before.
func (k commit) merge(newer *Record, isReported bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.becomes(newer); k.stored.is == live && !isReported {
		k.note(EventConflict, newer, nil)
	}
}

// install makes d what is stored, and its token, if it has one, what the cookie
// gets.
func (k commit) install(d draft) {
	k.mu.Lock()
	defer k.mu.Unlock()
	st := &k.stored
	if d.token != nil {
		k.cookie = cookie{carry, d.token, d.isAutomatic}
		if st.rec != nil {
			first := body.ExplicitKey(d.rec.Data)
			k.m.watch.rekey(k.watched, d.ref.Key, first)
			if first == d.ref.Key {
				k.m.watch.renewed(d.rec.ID, k.m.renewGrace)
			}
		}
		*st = stored{held: d.ref, isOwn: true}
	} else {
		movesEnd := !k.todo.remember.IsZero() || k.todo.user != "" && body.IsRemembered(d.rec.Data) // which EndBy had capped
		k.sendAgain(!movesEnd)
	}
	if d.event != "" {
		k.note(d.event, d.rec, nil)
	}
	if d.lost != nil {
		k.note(EventDropped, d.rec, d.lost)
	}
	if st.frozen != nil {
		k.seeOwnChanges()
	}
	st.is, st.rec, st.due = live, d.rec, body.Maintenance{}
	*k.todo = pending{}
}

// seeOwnChanges lets a request that sees the session as it was before a renewal
// see what it did itself. mu is held.
func (k commit) seeOwnChanges() {
	frozen := *k.stored.frozen
	if values, err := k.todo.changes.ApplyTo(frozen.Data); err == nil {
		frozen.Data = values
	}
	k.stored.frozen = &frozen
}

// lose forgets the stored session, which is over, and with it any cookie that
// was due. mu is held.
func (k commit) lose(is knowledge) {
	k.stored = stored{is: is, held: k.stored.held, wasHad: k.stored.is == live}
	k.cookie = cookie{}
}

// ended notes that this commit has ended the session, because the time of an EndBy has
// passed. The client may have a newer cookie if another request has renewed the session.
func (k commit) ended() {
	k.m.watch.ended(k.stored.rec.ID)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.note(EventLoggedOut, k.stored.rec, nil)
	mayHaveNewer := k.stored.frozen != nil
	k.lose(ended)
	if k.brought != noToken && !mayHaveNewer {
		k.cookie.do = remove
	}
	*k.todo = pending{}
}

// drop forgets the changes that no session is there to hold.
func (k commit) drop() error {
	err := k.stored.over()
	switch {
	case k.stored.is == twins:
		err = errTwins
	case k.stored.is == nothing && k.todo.hasEnded(time.Now()):
		err = ErrEnded
	case k.stored.is == nothing:
		err = errWithheld
		k.m.warnWithheld(k.ctx)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.note(EventDropped, &Record{ID: k.stored.held.ID}, err)
	*k.todo = pending{}
	return err
}

var errWithheld = errors.New("session: a request from another site came without a cookie, which SameSite keeps back: a new anonymous session would take the place of the one that the browser may have. Redirect to a page of this site, and begin it there")

// failed makes err the session's. That there is no session to hold a change is
// none of its problems, and neither is an upkeep that failed: the next request
// sees to that.
func (k commit) failed(err error, asked bool) error {
	if isEnding(err) {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if errors.Is(err, ErrStore) {
		k.note(EventStoreFailed, k.stored.rec, err)
	}
	switch {
	case !asked:
		k.stored.due = body.Maintenance{}
		return nil
	case k.problem.lasts(): // and stands when an ending has succeeded
	case errors.Is(err, ErrIndeterminate) && !k.todo.logout:
		// A write that may have been applied is never repeated with the changes
		// applied anew: an Update would count twice. An ending may be repeated.
		k.problem = problem{lasting, err}
	default:
		k.problem = problem{passing, err}
	}
	return err
}

// isEnding tells whether an error says that there is no session to hold a change.
func isEnding(err error) bool {
	return err == ErrEnded || err == ErrReplaced || err == errTwins || err == errWithheld
}
