package expressjs

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/coatcheck/session/internal/object"
)

// A cookie is the cookie object of a record, its members as they stand there. A
// record without a good one makes Express answer every request of the session with
// an error, or not at all.
type cookie struct{ members []object.Member }

// newCookie is the cookie object of a new session, in the order in which
// express-session writes it.
func (o *Options) newCookie() *cookie {
	c, from := &cookie{}, &o.Cookie
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
	add("secure", "true", from.Secure)
	add("httpOnly", "true", true)
	add("domain", string(text(from.Domain)), from.Domain != "")
	add("path", string(text(from.Path)), true)
	add("sameSite", `"`+from.SameSite+`"`, from.SameSite != "")
	return c
}

// cookieOf returns the cookie object as it stands in a record, without the members
// that Express cannot bear. If that is not an object, it is a new one.
func (o *Options) cookieOf(raw []byte) *cookie {
	members, err := object.Append(nil, raw)
	if err != nil || len(raw) == 0 {
		return o.newCookie()
	}
	c := &cookie{}
	for _, m := range members {
		if good(string(m.Name), string(m.Raw)) {
			c.members = append(c.members, m)
		}
	}
	return c
}

// good tells whether Express can bear a member of a cookie object.
func good(name, raw string) bool {
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

// until makes the cookie say when the session ends if nobody uses it again: where it
// has a maxAge, and with remembered, which gives it one.
func (c *cookie) until(end, now time.Time, remembered bool) {
	if remembered {
		c.members = object.Set(c.members, `"originalMaxAge"`, strconv.AppendInt(nil, max(1, end.Sub(now).Milliseconds()), 10))
	}
	if _, ok := c.maxAge(); ok {
		c.members = object.Set(c.members, `"expires"`, []byte(end.UTC().Format(`"2006-01-02T15:04:05.000Z"`)))
	}
}

func (c *cookie) json() []byte { return object.Write(c.members) }

// text is JSON of a string.
func text(s string) []byte {
	raw, _ := json.Marshal(s) // a string always encodes
	return raw
}
