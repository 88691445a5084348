package migrate

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/securecookie"
	"github.com/gorilla/sessions"
)

// Gorilla is gorilla/sessions: a store as the application had it, with all its keys
// and options, and the name of the session. Of gin-contrib/sessions a cookie store is
// the same with sessions.NewCookieStore of the same keys, and its options.
//
// Values are taken over whose names are strings. Others, such as those of a type
// contextKey of the application's own, are reported. When a user logged in is not
// known: see [Options.Allow].
//
// In a CookieStore a session is all in its cookie, and each cookie that was ever signed
// for a browser is a session of its own until it is too old. One of them is taken over
// and ends with a Logout; a copy of another is then taken over likewise, and opens what
// was in it. Only other keys end them.
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
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && s.IsNew:
		return &oldSession{isGone: true}, nil
	case isForged(s, err):
		return nil, nil
	case isUndecodable(err):
		return nil, mistake{fmt.Errorf("gorilla/sessions: %w", err)}
	case err != nil:
		return nil, fmt.Errorf("gorilla/sessions: the store failed: %w", err)
	}
	old := &oldSession{values: map[string]any{}, ends: ends(r, s), end: func() error {
		s.Options.MaxAge = -1
		return o.store.Save(r, httptest.NewRecorder(), s)
	}}
	for name, v := range s.Values {
		if text, ok := name.(string); ok {
			old.values[text] = v
		} else {
			old.odd = append(old.odd, fmt.Sprintf("%T(%v)", name, name))
		}
	}
	return old, nil
}

// isForged reports whether a store's New refused the cookie itself: none of the store's
// keys has signed it, it is too long, or it is too old. A store that keeps values elsewhere has
// set the ID if the cookie was good.
func isForged(s *sessions.Session, err error) bool {
	var all securecookie.MultiError // one for each pair of keys
	if !errors.As(err, &all) || all.IsUsage() || s != nil && s.ID != "" {
		return false
	}
	return !slices.ContainsFunc(all, func(err error) bool {
		var e securecookie.Error
		if !errors.As(err, &e) || e.Cause() == nil {
			return false
		}
		var noBase64 base64.CorruptInputError
		return !errors.As(e.Cause(), &noBase64) // but the serializer's, which sees only what was signed
	})
}

// isUndecodable reports whether an error is about what a store holds or how it is
// configured, and not about the store: no retry mends it.
func isUndecodable(err error) bool {
	var cookie securecookie.Error
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	return errors.As(err, &cookie) || errors.As(err, &syntax) || errors.As(err, &kind) ||
		err != nil && strings.HasPrefix(err.Error(), "gob: ") // which has no type of its own
}

// month is for how long securecookie accepts a cookie by default.
const month = 30 * 24 * time.Hour

// ends returns when a session ends whose cookie has been verified: MaxAge after it was
// signed, which stands in it. Where that is past, the session had a MaxAge of its own,
// which is not known; and it has none where it ends with the browser.
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
