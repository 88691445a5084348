package migrate

import (
	"context"
	"errors"
	"net/http"

	"github.com/alexedwards/scs/v2"
)

// SCS is alexedwards/scs: the SessionManager as the application had it, with its
// store, codec and cookie. It must no longer wrap anything.
func SCS(m *scs.SessionManager) Old { return scsSessions{m} }

type scsSessions struct{ m *scs.SessionManager }

func (o scsSessions) cookie() string { return o.m.Cookie.Name }

func (o scsSessions) spelled(value string) string { return value }

func (o scsSessions) read(r *http.Request) (*oldSession, error) {
	c, err := r.Cookie(o.m.Cookie.Name)
	if err != nil || len(c.Value) != 43 { // 32 random bytes
		return nil, nil
	}
	ctx, err := o.m.Load(context.WithoutCancel(r.Context()), c.Value)
	switch {
	case err != nil:
		return nil, errors.New("scs: the store or the codec failed: " + err.Error())
	case o.m.Token(ctx) == "": // it made a new one
		return nil, nil
	}
	old := &oldSession{values: map[string]any{}, ends: o.m.Deadline(ctx), end: func() error { return o.m.Destroy(ctx) }}
	old.created = old.ends.Add(-o.m.Lifetime)
	for _, name := range o.m.Keys(ctx) {
		if name != "__rememberMe" {
			old.values[name] = o.m.Get(ctx, name)
		}
	}
	return old, nil
}

func (o scsSessions) deletion(*http.Request) *http.Cookie {
	c := o.m.Cookie
	return &http.Cookie{Name: c.Name, Domain: c.Domain, Path: c.Path, HttpOnly: c.HttpOnly, Secure: c.Secure, SameSite: c.SameSite, Partitioned: c.Partitioned, MaxAge: -1}
}
