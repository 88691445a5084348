package migrate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/object"
)

// carry makes the new session, and ends the old one.
func (t *Takeover) carry(ctx context.Context, r *http.Request, k ticket, claim *session.Record, old *oldSession) (is begun, err error) {
	sealed := false
	defer func() {
		if sealed {
			return
		}
		ctx := context.WithoutCancel(ctx)
		t.release(ctx, claim) // another request may try
		if is.ID != "" {
			_ = t.o.Store.Delete(ctx, is.ID)
		}
	}()
	if is, err = t.begin(ctx, r, old); err != nil {
		return is, err
	}
	if is.Cookie != nothing {
		if err := t.seal(ctx, k, claim, is, old.ends); err != nil {
			return is, err
		}
		sealed = true
		t.count.Add(1)
	}
	if err := old.end(); err != nil {
		slog.ErrorContext(r.Context(), "migrate: an old session was taken over, and could not be ended in its store", "err", err)
	}
	return is, nil
}

// begin begins a session with what the old one had, as a request of its own would.
func (t *Takeover) begin(ctx context.Context, r *http.Request, old *oldSession) (is begun, err error) {
	user, err := userText(old.values[t.o.User])
	if err != nil {
		return is, fmt.Errorf("the user, %q, of an old session: %w", t.o.User, err)
	}
	resp := t.apart(r, nil, func(s *session.Session) {
		if user != "" {
			s.Login(user)
		}
		t.fill(r, s, old)
		if err = s.Save(ctx); err != nil {
			return
		}
		if is.ID = s.ID(); is.ID != "" {
			is.Key, err = t.adjust(ctx, s, old)
			is.ID = s.ID()
		}
	})
	switch lines := resp.Header["Set-Cookie"]; {
	case err != nil:
	case resp.StatusCode != http.StatusOK:
		err = fmt.Errorf("the Manager answers %s", resp.Status)
	case is.ID == "":
		is.Cookie = nothing
	case len(lines) != 1:
		err = errors.New("the Manager sets no cookie: Options.Bearer cannot take sessions over")
	case strings.HasPrefix(lines[0], t.o.Old.cookie()+"="):
		err = fmt.Errorf("the old cookie and the Manager's are both named %q: set session.Options.Cookie.Name", t.o.Old.cookie())
	default:
		is.Cookie = lines[0]
	}
	return is, err
}

// fill gives a session the values of an old one, and reports what it cannot take.
func (t *Takeover) fill(r *http.Request, s *session.Session, old *oldSession) {
	report := func(name string, err error) {
		slog.WarnContext(r.Context(), "migrate: a value of an old session was not taken over", "name", name, "err", err)
	}
	for _, v := range t.o.Values {
		if value, ok := old.values[v.name]; ok {
			if err := v.take(s, value); err != nil {
				report(v.name, err)
			}
		}
	}
	for _, name := range t.unnamed(old) {
		report(name, errors.New("neither Options.Values nor Options.Ignore names it"))
	}
}

// unnamed returns the names of the values that the options do not name, sorted.
func (t *Takeover) unnamed(old *oldSession) (names []string) {
	for name := range old.values {
		if name != t.o.User && !slices.Contains(t.o.Ignore, name) && !slices.ContainsFunc(t.o.Values, func(v Value) bool { return v.name == name }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// adjust gives the new session what the old one had left, and its beginning, if
// anybody knows it: it was then that somebody was authenticated, not now. It returns
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
	return keyOf(&r), t.o.Store.Save(ctx, &r, rec.Version) // nobody else has it yet
}

// keyOf returns the hash of the newest key of a session.
func keyOf(r *session.Record) string { return string(object.Find(r.Data, `"session.key"`)) }
