package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coatcheck/session/expressjs"
)

// content is what of a record the examination looks at.
type content struct {
	Cookie struct {
		OriginalMaxAge json.RawMessage
		Expires        json.RawMessage
		Secure         bool
		Domain, Path   string
		SameSite       any
	}
	Passport map[string]json.RawMessage
}

// record looks at a session's record, and at when it ends.
func (e *examination) record(found *stored) {
	if all := expressjs.Problems([]byte(found.record)); len(all) > 0 {
		for _, p := range all {
			e.problem("%s", p)
		}
		e.note("a write by Go mends the cookie object. Look for what else writes these records")
		return
	}
	var c content
	if err := json.Unmarshal([]byte(found.record), &c); err != nil {
		e.problem("the record's cookie is not as express-session writes it: a member has another type")
		return
	}
	e.ok("the record is an object, and its cookie is complete")
	var maxAge time.Duration
	if ms, err := json.Number(string(c.Cookie.OriginalMaxAge)).Float64(); err == nil && ms > 0 {
		maxAge = time.Duration(ms) * time.Millisecond
	}
	var expires time.Time
	_ = json.Unmarshal(c.Cookie.Expires, &expires)
	e.end(found, maxAge, expires)
	e.config(&c, maxAge)
}

// end compares the end of the key or row with what the cookie says.
func (e *examination) end(found *stored, maxAge time.Duration, expires time.Time) {
	left := time.Until(found.ends)
	if found.zone != "" {
		e.note("this connection's TimeZone is %s. Node's must have the same: ask its pool for SHOW TimeZone", found.zone)
	}
	switch {
	case found.ends.IsZero():
		e.problem("the key has no time to live: the app has disableTTL, or it is connect-redis 9 or later with the package redis before 5, which loses it. Such sessions never end: update the package redis")
		return
	case left < 0:
		e.problem("its time was up %v ago", (-left).Round(time.Second))
	case maxAge > 0 && left > maxAge+time.Minute:
		e.problem("it lives for another %v, and the cookie's maxAge is %v: %s", left.Round(time.Second), maxAge, longer(found))
	default:
		e.ok("it lives for another %v if nobody uses it", left.Round(time.Second))
	}
	if expires.IsZero() {
		return
	}
	switch lag := found.ends.Sub(expires); {
	case found.zone != "" && lag.Abs() > 14*time.Minute && isZone(lag):
		e.problem("its row ends %v from when its cookie does: Node's connections have another TimeZone than this one. Set the same for both, \"SET TIME ZONE 'UTC'\" for example", lag.Round(time.Second))
	case lag > 2*time.Second:
		e.ok("it was used since it was written last, and not written again: resave is false, as it must be")
	default:
		e.note("it was written when it was used last. Load a page that changes nothing in the session, and run this again: if it then still says so, the app has resave: true (the default), which overwrites what Go saves. Set resave: false")
	}
}

// longer is why a session may live longer than its cookie's maxAge.
func longer(found *stored) string {
	if found.zone != "" {
		return "Node's connections have another TimeZone than this one, or somebody has remembered it"
	}
	return "something else than connect-redis sets it, or the app's ttl is a function"
}

// isZone tells whether two clocks may differ by this because of their time zones.
func isZone(d time.Duration) bool {
	const quarter = 15 * time.Minute
	off := (d.Abs() + quarter/2) % quarter
	return d.Abs() < 15*time.Hour && off > quarter/2-time.Minute && off < quarter/2+time.Minute
}

// config says what Go is to be configured with.
func (e *examination) config(c *content, maxAge time.Duration) {
	idle := "24 * time.Hour, or connect-redis's ttl"
	if maxAge > 0 {
		idle = fmt.Sprintf("%d * time.Second", int(maxAge.Seconds()))
	}
	e.note("configure Go alike: session.Options.IdleTimeout: %s", idle)
	var cookie []string
	add := func(there bool, format string, args ...any) {
		if there {
			cookie = append(cookie, fmt.Sprintf(format, args...))
		}
	}
	add(maxAge > 0, "MaxAge: %d * time.Second", int(maxAge.Seconds()))
	add(c.Cookie.Path != "" && c.Cookie.Path != "/", "Path: %q", c.Cookie.Path)
	add(c.Cookie.Domain != "", "Domain: %q", c.Cookie.Domain)
	add(c.Cookie.Secure, "Secure: true")
	site := strings.ToLower(fmt.Sprint(c.Cookie.SameSite))
	if site == "true" {
		site = "strict"
	}
	add(slices.Contains([]string{"lax", "strict", "none"}, site), "SameSite: %q", site)
	e.note("            expressjs.Options.Cookie: expressjs.Cookie{%s}", strings.Join(cookie, ", "))
	add = func(there bool, format string, args ...any) {
		if there {
			e.note("            session.Options.Cookie."+format, args...)
		}
	}
	add(!c.Cookie.Secure, "Insecure: true, for Express sets its cookie without Secure (in production it should not)")
	add(maxAge > 0, "Persistent: true, for Express's cookie survives the closing of the browser")
	add(c.Cookie.Domain != "", "Domain: %q", c.Cookie.Domain)
	add(c.Cookie.Path != "" && c.Cookie.Path != "/", "Path: %q", c.Cookie.Path)
	if user, ok := c.Passport["user"]; ok {
		numeric := ""
		if len(user) > 0 && user[0] != '"' {
			numeric = ", NumericUser: true"
		}
		e.note("            expressjs.Options{Passport: true%s}, for a user has logged in by Passport", numeric)
	}
}
