package migrate

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/securecookie"
	"github.com/gorilla/sessions"
)

// Gorilla is gorilla/sessions: a store as the application had it, with all its keys
// and options, and the name of the session. Of gin-contrib/sessions a cookie store is
// the same with sessions.NewCookieStore of the same keys, and its options.
func Gorilla(store sessions.Store, name string) Old { return gorillaSessions{store, name} }

type gorillaSessions struct {
	store sessions.Store
	name  string
}

func (o gorillaSessions) cookie() string { return o.name }

func (o gorillaSessions) read(r *http.Request) (*oldSession, error) {
	s, err := o.store.New(r, o.name)
	var failed securecookie.Error
	switch {
	case errors.As(err, &failed) && failed.IsDecode(), errors.Is(err, fs.ErrNotExist):
		return nil, nil // a bad cookie, or one whose session is over
	case err != nil:
		return nil, fmt.Errorf("gorilla/sessions: %w", err)
	case s.IsNew:
		return nil, nil
	}
	old := &oldSession{values: map[string]any{}, ends: ends(r, s), end: func() error {
		s.Options.MaxAge = -1
		return o.store.Save(r, httptest.NewRecorder(), s)
	}}
	for name, v := range s.Values {
		old.values[fmt.Sprint(name)] = v
	}
	return old, nil
}

// ends returns when a session ends whose cookie has been verified: MaxAge after it was
// signed, which stands in it.
func ends(r *http.Request, s *sessions.Session) time.Time {
	life := time.Duration(s.Options.MaxAge) * time.Second
	if life <= 0 { // until the browser is closed
		life = 30 * 24 * time.Hour // for as long as securecookie takes it
	}
	signed := time.Now()
	if c, err := r.Cookie(s.Name()); err == nil {
		if b, err := base64.URLEncoding.DecodeString(c.Value); err == nil {
			date, _, _ := strings.Cut(string(b), "|")
			if n, err := strconv.ParseInt(date, 10, 64); err == nil {
				signed = time.Unix(n, 0)
			}
		}
	}
	return signed.Add(life)
}

func (o gorillaSessions) deletion(r *http.Request) *http.Cookie {
	bare := r.Clone(r.Context())
	bare.Header.Del("Cookie")
	options := sessions.Options{Path: "/"}
	if s, err := o.store.New(bare, o.name); err == nil && s.Options != nil {
		options = *s.Options
	}
	options.MaxAge = -1
	return sessions.NewCookie(o.name, "", &options)
}
