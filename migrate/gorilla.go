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

// spelled is what the value encodes: in base64 the last character has bits that do
// not count.
func (o gorillaSessions) spelled(value string) string {
	b, err := base64.URLEncoding.DecodeString(value)
	if err != nil {
		return value // which is no good one
	}
	return string(b)
}

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

// month is for how long securecookie takes a cookie if nobody says otherwise.
const month = 30 * 24 * time.Hour

// ends returns when a session ends whose cookie has been verified: MaxAge after it was
// signed, which stands in it. Where that is past, the session had a MaxAge of its own,
// which nobody knows; and it has none where it ends with the browser.
func ends(r *http.Request, s *sessions.Session) time.Time {
	signed := time.Now()
	if c, err := r.Cookie(s.Name()); err == nil {
		if b, err := base64.URLEncoding.DecodeString(c.Value); err == nil {
			date, _, _ := strings.Cut(string(b), "|")
			if n, err := strconv.ParseInt(date, 10, 64); err == nil {
				signed = time.Unix(n, 0)
			}
		}
	}
	life, now := time.Duration(s.Options.MaxAge)*time.Second, time.Now()
	if end := signed.Add(life); life > 0 && now.Before(end) {
		return end
	}
	if end := signed.Add(month); now.Before(end) {
		return end
	}
	return now.Add(month)
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
