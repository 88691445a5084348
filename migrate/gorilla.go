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

// Gorilla returns the sessions of gorilla/sessions: those of a store with the configuration of the
// application, all its keys and options, and the name of the session. For a cookie store of
// gin-contrib/sessions, pass sessions.NewCookieStore with the same keys and options.
//
// Only values whose names are strings are taken over. Other names, such as those of a type
// contextKey of the application, are reported. The time of the login is unknown: see
// [Options].Allow.
//
// A CookieStore keeps the whole session in its cookie. Each cookie that the store has signed for a
// browser is a session of its own until MaxAge has passed. If one of them is taken over and logged
// out, a copy of an earlier one can still be taken over, with the user and the values in it. Only a
// change of the keys ends those copies.
func Gorilla(store sessions.Store, name string) Old { return gorillaSessions{store, name} }

type gorillaSessions struct {
	store sessions.Store
	name  string
}

func (o gorillaSessions) cookie() string { return o.name }

// spelled decodes value: base64 ignores some bits of the last character, so several cookie values
// have the same bytes.
func (o gorillaSessions) spelled(value string) string {
	b, err := base64.URLEncoding.DecodeString(value)
	if err != nil {
		return value // invalid: the store refuses the value
	}
	return string(b)
}

func (o gorillaSessions) read(r *http.Request) (*oldSession, error) {
	s, err := o.store.New(r, o.name)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && s.IsNew:
		return &oldSession{isMissing: true}, nil
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

// isForged reports whether New of the store refused the cookie itself: no key of the store has
// signed it, the cookie is too long, or the cookie has expired. A store that keeps values outside
// the cookie has set the ID if the cookie was valid.
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
		return !errors.As(e.Cause(), &noBase64) // any other cause is an error of the serializer, which decodes only signed cookies
	})
}

// isUndecodable reports whether an error concerns the content or the configuration of a store, and
// is not an outage: a retry does not correct it.
func isUndecodable(err error) bool {
	var cookie securecookie.Error
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	return errors.As(err, &cookie) || errors.As(err, &syntax) || errors.As(err, &kind) ||
		err != nil && strings.HasPrefix(err.Error(), "gob: ") // errors of gob have no type of their own
}

// month is the time for which securecookie accepts a cookie by default.
const month = 30 * 24 * time.Hour

// ends returns when the session of a verified cookie ends: MaxAge after the time of the signature,
// which is in the cookie. If that time is past, the session had a MaxAge of its own, which is
// unknown. A session that ends with the browser has no MaxAge. In both cases securecookie's month
// is the limit.
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
