package migrate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/alexedwards/scs/v2"
)

// SCS returns the sessions of alexedwards/scs: those of a SessionManager with the configuration of
// the application, its store, codec and cookie. The SessionManager must no longer wrap a handler.
//
// The time of the login is computed as the end of a session minus the Lifetime of the
// SessionManager. Set Lifetime to the longest value that the application ever used, or set by
// SetDeadline, so that no login appears later than it was. If the result is in the future, the time
// of the login is unknown (see [Options].Allow).
//
// A session that was taken over stays in the old store until its end, without values, so that later
// requests with its token find the new session. A forged token costs a read of the old store and
// none of the new one.
func SCS(m *scs.SessionManager) Old { return scsSessions{m} }

type scsSessions struct{ m *scs.SessionManager }

func (o scsSessions) cookie() string { return o.m.Cookie.Name }

func (o scsSessions) spelled(value string) string { return value }

// tokenLength is the length of an scs token: 32 random bytes in base64.
const tokenLength = 43

func (o scsSessions) read(r *http.Request) (*oldSession, error) {
	c, err := r.Cookie(o.m.Cookie.Name)
	if err != nil || len(c.Value) != tokenLength {
		return nil, nil
	}
	m := *o.m
	m.Codec = tellingCodec{m.Codec}
	ctx, err := m.Load(context.WithoutCancel(r.Context()), c.Value)
	var undecodable undecodableError
	switch {
	case errors.As(err, &undecodable):
		return nil, mistake{fmt.Errorf("scs: %w", undecodable.error)}
	case err != nil:
		return nil, fmt.Errorf("scs: the store failed: %w", err)
	case m.Token(ctx) == "": // scs has made a new session
		return nil, nil
	}
	old := &oldSession{values: map[string]any{}, ends: m.Deadline(ctx)}
	if began := old.ends.Add(-m.Lifetime); !began.After(time.Now()) {
		old.created = began
	}
	for _, name := range m.Keys(ctx) {
		if name != "__rememberMe" {
			old.values[name] = m.Get(ctx, name)
		}
	}
	old.end = func() error {
		if err := m.Clear(ctx); err != nil {
			return err
		}
		_, _, err := m.Commit(ctx)
		return err
	}
	return old, nil
}

// A tellingCodec wraps the errors of a Codec in undecodableError, so that they can be distinguished
// from failures of the store.
type tellingCodec struct{ scs.Codec }

type undecodableError struct{ error }

func (c tellingCodec) Decode(b []byte) (time.Time, map[string]any, error) {
	deadline, values, err := c.Codec.Decode(b)
	if err != nil {
		err = undecodableError{err}
	}
	return deadline, values, err
}

func (o scsSessions) deletion(*http.Request) *http.Cookie {
	c := o.m.Cookie
	return &http.Cookie{Name: c.Name, Domain: c.Domain, Path: c.Path, HttpOnly: c.HttpOnly, Secure: c.Secure, SameSite: c.SameSite, Partitioned: c.Partitioned, MaxAge: -1}
}
