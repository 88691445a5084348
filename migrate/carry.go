package migrate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/body"
)

// carry begins the new session, seals its cookie in the record of the claim, and ends the old
// session. If it fails, it deletes the new session and releases the claim.
func (t *Takeover) carry(ctx context.Context, r *http.Request, k ticket, claim *session.Record, old *oldSession, user string) (made begun, err error) {
	sealed := false
	defer func() {
		if sealed {
			return
		}
		ctx := context.WithoutCancel(ctx)
		t.release(ctx, claim) // another request may take the session over
		if made.ID != "" {
			_ = t.o.Store.Delete(ctx, made.ID)
		}
	}()
	if made, err = t.begin(ctx, r, old, user); err != nil {
		return made, err
	}
	// Allow is called again: RevokeAll may have listed the sessions of the user just before this
	// one was stored.
	if !t.allows(user, old) {
		made.Cookie = nothing
	}
	if made.Cookie != nothing {
		if err := t.seal(ctx, k, claim, made, old.ends); err != nil {
			return made, err
		}
		sealed = true
		t.count.Add(1)
	}
	t.end(ctx, old)
	return made, nil
}

// end ends an old session in its store.
func (t *Takeover) end(ctx context.Context, old *oldSession) {
	if err := old.end(); err != nil {
		slog.ErrorContext(ctx, "migrate: an old session could not be ended in its store; delete it there or remove the old library", "err", err)
	}
}

// begin begins a session with the user and the values of the old one, in a request of its own.
func (t *Takeover) begin(ctx context.Context, r *http.Request, old *oldSession, user string) (made begun, err error) {
	var begins *session.Session
	resp := t.apart(r, nil, func(s *session.Session) {
		begins = s
		if user != "" {
			s.Login(user)
		}
		if err = t.fill(ctx, s, old); err != nil {
			return
		}
		if made.ID = s.ID(); made.ID != "" {
			made.Key, err = t.adjust(ctx, s, old)
		}
	})
	switch lines := resp.Header["Set-Cookie"]; {
	case err != nil:
	case resp.StatusCode != http.StatusOK && errors.Is(begins.Err(), session.ErrStore):
		err = begins.Err()
	case resp.StatusCode != http.StatusOK:
		err = mistake{fmt.Errorf("the Manager answers %s: see its log", resp.Status)}
	case made.ID == "":
		made.Cookie = nothing
	case len(lines) != 1:
		err = errors.New("the Manager sets no cookie: unset session.Options.Bearer")
	case strings.HasPrefix(lines[0], t.o.Old.cookie()+"="):
		err = fmt.Errorf("the old cookie and the Manager's are both named %q: set session.Options.Cookie.Name", t.o.Old.cookie())
	default:
		made.Cookie = lines[0]
	}
	return made, err
}

// fill sets the values of an old session in a new one and saves it. It reports each value that it
// leaves out. If the values exceed session.Options.MaxDataSize, it leaves out the largest ones.
func (t *Takeover) fill(ctx context.Context, s *session.Session, old *oldSession) error {
	report := func(name string, err error) {
		slog.WarnContext(ctx, "migrate: a value of an old session was not taken over; correct Options.Values or list the name in Options.Ignore", "name", name, "err", err)
	}
	type sized struct {
		Value
		size int
	}
	var taken []sized
	for _, v := range t.o.Values {
		if value, ok := old.values[v.name]; ok {
			size, err := v.take(s, value)
			if err != nil {
				report(v.name, err)
				continue
			}
			taken = append(taken, sized{v, size})
		}
	}
	for _, name := range t.unnamed(old) {
		report(name, errors.New("neither Options.Values nor Options.Ignore names it"))
	}
	for _, name := range old.odd {
		if !slices.Contains(t.o.Ignore, name) {
			report(name, errors.New("the name of the value is not a string: list the name in this form in Options.Ignore"))
		}
	}
	slices.SortStableFunc(taken, func(a, b sized) int { return a.size - b.size })
	for {
		err := s.Save(ctx)
		switch last := len(taken) - 1; {
		case errors.Is(err, session.ErrTooLarge) && last >= 0:
			report(taken[last].name, err)
			taken[last].leave(s)
			taken = taken[:last]
		case errors.Is(err, session.ErrEnded): // MaxPerUser newer logins have ended it
			return nil
		case err == nil, errors.Is(err, session.ErrStore):
			return err
		default:
			return mistake{err}
		}
	}
}

// unnamed returns the names, sorted, of the old values that the options do not list.
func (t *Takeover) unnamed(old *oldSession) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(old.values)), func(name string) bool {
		return name == t.o.User || slices.Contains(t.o.Ignore, name) || slices.ContainsFunc(t.o.Values, func(v Value) bool { return v.name == name })
	})
}

// adjust sets the lifetime of the new session to what the old one had left, and its creation to
// that of the old one (zero: unknown), because the user was authenticated at that time. It returns
// the hash of the key.
func (t *Takeover) adjust(ctx context.Context, s *session.Session, old *oldSession) (key string, err error) {
	rec, err := t.o.Store.Load(ctx, s.ID())
	if err != nil {
		return "", err
	}
	if t.o.Remember && old.ends.After(rec.Deadline) {
		s.Remember(time.Until(old.ends))
		if err := s.Save(ctx); err != nil {
			return "", err
		}
		if rec, err = t.o.Store.Load(ctx, s.ID()); err != nil {
			return "", err
		}
	}
	r := *rec
	r.Created = old.created.Truncate(time.Millisecond)
	if ends := old.ends.Truncate(time.Millisecond); ends.Before(r.Deadline) {
		r.Deadline = ends
	}
	if r.Expires.After(r.Deadline) {
		r.Expires = r.Deadline
	}
	r.Version = newVersion()
	return body.ExplicitKey(r.Data), t.o.Store.Save(ctx, &r, rec.Version) // no other request has this session yet
}
