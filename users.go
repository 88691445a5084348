package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/parallel"
	"github.com/coatcheck/session/internal/storectx"
)

// RequireUser returns a handler that calls next if a user is logged in, and otherwise if not. A
// pending Login counts. If the token of the request was replaced ([Session.Err] is [ErrReplaced]),
// if the browser has not proved itself ([ErrUnproven]) or if the session has ended ([Session.Ended]),
// otherwise is called. A nil otherwise answers 401 with an empty body, and with [Options].Bearer the
// header WWW-Authenticate: Bearer (RFC 6750, 3).
//
// While the store fails, RequireUser calls neither: the response is that of Options.ErrorHandler,
// by default 503.
//
// RequireUser panics outside this Manager's Handler.
func (m *Manager) RequireUser(next, otherwise http.Handler) http.Handler {
	if otherwise == nil {
		otherwise = http.HandlerFunc(m.answerUnauthorized)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := m.From(r.Context())
		user, err := s.User(), s.Err()
		switch {
		case errors.Is(err, ErrStore):
			s.failResponse(err)
			w.WriteHeader(errorStatus(err)) // ErrorHandler replaces this response
		case user != "":
			next.ServeHTTP(w, r)
		default:
			otherwise.ServeHTTP(w, r)
		}
	})
}

// answerUnauthorized answers 401 with an empty body.
func (m *Manager) answerUnauthorized(w http.ResponseWriter, _ *http.Request) {
	if challenge := m.carrier.challenge(); challenge != "" {
		w.Header().Set("WWW-Authenticate", challenge)
	}
	w.WriteHeader(http.StatusUnauthorized)
}

var errNoUser = errors.New("session: the user is empty")

// List returns the live sessions of a user, the most recently seen first, for a page that shows
// "your devices". [Manager.Revoke] ends one of them; OWASP ASVS 5, 7.5.2, requires that the user
// reauthenticates before that. [Manager.Edit] changes values of one of them.
//
// If the user has no sessions, List returns none and a nil error. An empty user is an error. List
// ends when ctx is canceled, and after Options.StoreTimeout at the latest. A failure of the store
// is an [ErrStore].
func (m *Manager) List(ctx context.Context, user string) ([]Info, error) {
	if user == "" {
		return nil, errNoUser
	}
	c := storectx.Under(ctx, m.timeout)
	defer c.Release()
	records, err := m.live(c, user)
	if err != nil {
		if ctx.Err() == nil {
			m.emit(ctx, EventStoreFailed, &Record{User: user}, err)
		}
		return nil, err
	}
	infos := make([]Info, len(records))
	for i, rec := range records {
		infos[i] = m.infoOf(rec)
	}
	return infos, nil
}

// Revoke ends the session of a user with this id. It returns nil if there is no such session, or
// if the session is another user's. Revoke, RevokeOthers and RevokeAll take the values and the
// deadline of ctx, not its cancellation: sessions end even if the user closes the page.
func (m *Manager) Revoke(ctx context.Context, user, id string) error {
	if user == "" {
		return errNoUser
	}
	return m.revoke(ctx, user, &Record{ID: id})
}

// RevokeOthers ends all sessions of the user of s except s (OWASP ASVS 5, 7.4.3: offer this after
// a change of password). It returns an error if s is anonymous.
func (m *Manager) RevokeOthers(ctx context.Context, s *Session) error {
	user, id := s.User(), s.ID()
	if user == "" {
		return errors.New("session: RevokeOthers: the session is anonymous")
	}
	return m.revokeAll(ctx, user, id)
}

// RevokeAll ends all sessions of a user, also that of the request that calls it, 16 of them at a
// time, each within Options.StoreTimeout. If some endings fail, the other sessions still end, and
// RevokeAll returns the errors joined. It gives up after 16 failures in a row. RevokeOthers does
// the same.
//
// RevokeAll does not end the session of a concurrent login that has checked the password before
// this call and creates its session after it: the recipe for a change of password in
// docs/recipes/login.md refuses such a login.
func (m *Manager) RevokeAll(ctx context.Context, user string) error {
	if user == "" {
		return errNoUser
	}
	return m.revokeAll(ctx, user, "")
}

// revokeAll ends the user's sessions except but. It lists again until no session is left whose
// login was before the call.
func (m *Manager) revokeAll(ctx context.Context, user, but string) error {
	called := milliseconds(time.Now())
	done := map[string]bool{but: true}
	for first := true; ; first = false {
		records, err := m.list(ctx, user)
		if err != nil {
			return err
		}
		// The sessions of the first list began before the call, whatever their clocks say.
		records = slices.DeleteFunc(records, func(r *Record) bool {
			return done[r.ID] || !first && r.Created.After(called)
		})
		if len(records) == 0 {
			return nil
		}
		if err := m.revoke(ctx, user, records...); err != nil {
			return err
		}
		for _, rec := range records {
			done[rec.ID] = true
		}
	}
}

// revoke ends sessions of a user, several of them concurrently. Of a record that is not loaded,
// only the ID is set.
func (m *Manager) revoke(ctx context.Context, user string, records ...*Record) error {
	ended, failed := make([]*Record, len(records)), make([]error, len(records))
	defer func() { // also if the store panics
		for i, rec := range records {
			switch {
			case failed[i] != nil:
				m.emit(ctx, EventStoreFailed, rec, failed[i])
			case ended[i] != nil:
				m.emit(ctx, EventRevoked, ended[i], nil)
			}
		}
	}()
	return parallel.Do(len(records), maxParallel(), func(i int) error {
		c := storectx.Within(ctx, m.timeout)
		defer c.Release()
		known := records[i]
		if known.Version == 0 {
			known = nil
		}
		ended[i], _, failed[i] = m.end(c, records[i].ID, user, body.ReasonRevoke, known)
		return failed[i]
	})
}

// list returns the live records of a user, most recently seen first.
func (m *Manager) list(ctx context.Context, user string) ([]*Record, error) {
	c := storectx.Within(ctx, m.timeout)
	defer c.Release()
	records, err := m.live(c, user)
	if err != nil {
		m.emit(ctx, EventStoreFailed, &Record{User: user}, err)
	}
	return records, err
}

// live is list for a transaction, which delivers events at its end.
func (m *Manager) live(c *storectx.Context, user string) ([]*Record, error) {
	records, err := m.store.List(c, user)
	if err != nil {
		return nil, storeError("list", err)
	}
	now := time.Now()
	records = slices.DeleteFunc(records, func(r *Record) bool {
		return !isLive(r) || r.User != user || r.hasExpired(now)
	})
	slices.SortFunc(records, func(a, b *Record) int { // by login and ID too: a store lists in any order
		return cmp.Or(b.LastSeen.Compare(a.LastSeen), b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	return records, nil
}

// An Info describes one session as it was stored when [Manager.List] was called. [Key.Of] reads its
// values, and [Manager.Edit] changes them.
type Info struct {
	ID         string    // see [Session.ID]: not a secret, may be logged and shown
	User       string    // the user of the last Login
	Created    time.Time // when Login was last called
	LastSeen   time.Time // when the session was last used, with a tolerance of 1/20 of the idle timeout
	Expires    time.Time // the earlier of the idle and the absolute end
	Remembered bool      // whether Remember has set the end

	DeviceBound bool // whether the session is bound to the browser that logged in

	data func() []byte // Record.Data; nil: there is none. A func has no contents that a log could print
}

// infoOf returns the Info of a live record.
func (m *Manager) infoOf(rec *Record) Info {
	data := rec.Data
	return Info{
		ID: rec.ID, User: rec.User, Created: rec.Created, LastSeen: rec.LastSeen, Expires: rec.Expires,
		Remembered: body.IsRemembered(rec.Data), DeviceBound: m.isBound(rec), data: func() []byte { return data },
	}
}

// Format implements fmt.Formatter. It prints the fields and no values, for every verb.
func (i Info) Format(f fmt.State, _ rune) { fmt.Fprint(f, "session.Info", attrs(i)) }

// LogValue implements slog.LogValuer. It contains the same fields as Format prints.
func (i Info) LogValue() slog.Value { return slog.GroupValue(attrs(i)...) }

// Of returns the value in a listed session, and whether there is one: see [Key.Lookup].
func (k Key[T]) Of(i Info) (T, bool) {
	if i.data == nil {
		var zero T
		return zero, false
	}
	return decode[T](body.Value(i.data(), k.name))
}
