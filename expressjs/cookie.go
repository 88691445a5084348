package expressjs

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/coatcheck/session/internal/object"
	"github.com/coatcheck/session/internal/shared"
)

// A cookie is the cookie object of a record, with its members in their stored form. If a record has
// no valid cookie, Express answers every request of the session with an error, or not at all.
type cookie struct{ members []object.Member }

// newCookie returns the cookie object of a new session, in the order in which express-session
// writes it.
func (o *Options) newCookie() *cookie {
	c, from := &cookie{}, o.cookie()
	add := func(name string, raw string, there bool) {
		if there {
			c.members = append(c.members, object.Member{Name: []byte(`"` + name + `"`), Raw: []byte(raw)})
		}
	}
	age, end := "null", "null"
	if from.MaxAge > 0 {
		age, end = strconv.FormatInt(from.MaxAge.Milliseconds(), 10), `""`
	}
	add("originalMaxAge", age, true)
	add("partitioned", "true", from.Partitioned)
	add("priority", `"`+from.Priority+`"`, from.Priority != "")
	add("expires", end, true)
	add("secure", "true", !from.Insecure)
	add("httpOnly", "true", true)
	add("domain", string(text(from.Domain)), from.Domain != "")
	add("path", string(text(from.Path)), true)
	add("sameSite", `"`+from.SameSite+`"`, from.SameSite != "")
	return c
}

// cookie returns the options of a new session's cookie.
func (o *Options) cookie() *Cookie {
	if c := o.agreed.Load(); c != nil {
		return c
	}
	return o.Cookie.withDefaults()
}

func (c Cookie) withDefaults() *Cookie {
	c.Path, c.SameSite = cmp.Or(c.Path, "/"), cmp.Or(c.SameSite, "lax")
	return &c
}

var sameSites = map[http.SameSite]string{http.SameSiteLaxMode: "lax", http.SameSiteStrictMode: "strict", http.SameSiteNoneMode: "none"}

// Agree implements shared.Store. [session.New] calls it.
func (s *records) Agree(c shared.Cookie) (shared.Cookie, error) {
	var errs []error
	with := s.o.Cookie
	either := func(name, here, there string) string {
		if here != "" && there != "" && here != there {
			errs = append(errs, fmt.Errorf("expressjs: Options.Cookie.%s: is %q, but %q in session.Options.Cookie: set only one of them", name, here, there))
		}
		return cmp.Or(here, there)
	}
	with.Path = either("Path", with.Path, c.Path)
	with.Domain = either("Domain", with.Domain, c.Domain)
	with.SameSite = either("SameSite", with.SameSite, sameSites[c.SameSite])
	with.Insecure = with.Insecure || c.Insecure
	with.Partitioned = with.Partitioned || c.Partitioned
	s.o.agreed.Store(with.withDefaults())
	for mode, name := range sameSites {
		if name == with.SameSite {
			c.SameSite = mode
		}
	}
	return shared.Cookie{Path: with.Path, Domain: with.Domain, SameSite: c.SameSite, Insecure: with.Insecure, Partitioned: with.Partitioned}, errors.Join(errs...)
}

// Lifetimes implements shared.Store. [session.New] calls it.
func (s *records) Lifetimes() shared.Lifetimes {
	return shared.Lifetimes{MaxAge: s.o.Cookie.MaxAge, TTL: s.o.TTL, IsTTLSet: s.o.isTTLSet}
}

// cookieOf returns the cookie object of a record, without the members that Express does not accept.
// If raw is not an object, cookieOf returns a new cookie.
func (o *Options) cookieOf(raw []byte) *cookie {
	members, err := object.Append(nil, raw)
	if err != nil || len(raw) == 0 {
		return o.newCookie()
	}
	c := &cookie{}
	for _, m := range members {
		if isValidMember(string(m.Name), string(m.Raw)) {
			c.members = append(c.members, m)
		}
	}
	return c
}

// isValidMember reports whether Express accepts this value of a member of a cookie object.
func isValidMember(name, raw string) bool {
	isText := strings.HasPrefix(raw, `"`)
	isWord := raw == "null" || raw == "false" || raw == "true"
	switch name {
	case `"originalMaxAge"`:
		return raw == "null" || raw == "false" || !isText && !isWord && raw[0] != '{' && raw[0] != '['
	case `"expires"`:
		return raw == "null" || raw == "false" || isText && isTime(raw)
	case `"secure"`, `"httpOnly"`, `"partitioned"`:
		return raw == "true" || raw == "false"
	case `"path"`, `"domain"`:
		return isText || raw == "null"
	case `"sameSite"`:
		switch strings.ToLower(raw) {
		case `true`, `false`, `"lax"`, `"strict"`, `"none"`:
			return true
		}
		return false
	case `"priority"`:
		switch strings.ToLower(raw) {
		case `"low"`, `"medium"`, `"high"`:
			return true
		}
		return false
	}
	return true
}

func isTime(raw string) bool {
	var t time.Time
	return json.Unmarshal([]byte(raw), &t) == nil
}

// maxAge returns originalMaxAge in milliseconds, if it is a number above zero.
func (c *cookie) maxAge() (ms int64, ok bool) {
	f, err := strconv.ParseFloat(string(object.Get(c.members, `"originalMaxAge"`)), 64)
	return int64(f), err == nil && f >= 1 && f < 1<<53
}

// idle returns the idle timeout of the session in milliseconds, if the cookie has a maxAge.
func (c *cookie) idle() (ms int64, ok bool) {
	ms, ok = c.maxAge()
	return duration(ms).Milliseconds(), ok
}

// until sets the end of the session in the cookie, if the cookie has a maxAge. idle is the new idle
// timeout of the session in milliseconds; 0: unchanged.
func (c *cookie) until(end time.Time, idle int64) {
	if was, ok := c.idle(); idle > 0 && (!ok || was != idle) {
		c.members = object.Set(c.members, `"originalMaxAge"`, strconv.AppendInt(nil, idle, 10))
	}
	if _, ok := c.maxAge(); ok {
		c.members = object.Set(c.members, `"expires"`, []byte(end.UTC().Format(`"2006-01-02T15:04:05.000Z"`)))
	}
}

func (c *cookie) json() []byte { return object.Write(c.members) }

// text returns the JSON of a string.
func text(s string) []byte {
	raw, _ := json.Marshal(s) // encoding a string never fails
	return raw
}
