package main

import (
	"encoding/json"
	"math"
	"time"

	"github.com/coatcheck/session/expressjs"
)

// content is what of a record the examination looks at.
type content struct {
	Cookie struct {
		OriginalMaxAge json.RawMessage
		Expires        json.RawMessage
		Secure         bool
		HTTPOnly       *bool
		Partitioned    bool
		Domain, Path   string
		SameSite       any
		Priority       string
	}
}

// longest is the longest maxAge that package expressjs supports.
const longest = 200 * 365 * 24 * time.Hour

// maxAge returns the maxAge of the session's cookie, or 0.
func (c *content) maxAge() time.Duration {
	ms, err := json.Number(string(c.Cookie.OriginalMaxAge)).Float64()
	if err != nil || ms < 1 {
		return 0
	}
	const slack = 10 // express-session 1.17 and later counts some milliseconds less than it is given
	if up := math.Ceil(ms/1000) * 1000; up-ms <= slack {
		ms = up
	}
	return time.Duration(math.Min(ms, float64(longest.Milliseconds()))) * time.Millisecond
}

// record examines the record of a session, and its end.
func (e *examination) record(found *stored) {
	if all := expressjs.Problems([]byte(found.record)); len(all) > 0 {
		for _, p := range all {
			e.problem("%s", p)
		}
		return
	}
	var c content
	if err := json.Unmarshal([]byte(found.record), &c); err != nil {
		e.problem("the record's cookie is not as express-session writes it: a member has another type")
		return
	}
	e.ok("the record is an object, and its cookie is complete")
	e.checked = append(e.checked, "the record")
	var expires time.Time
	_ = json.Unmarshal(c.Cookie.Expires, &expires)
	e.size(found.record)
	e.end(found, c.maxAge(), expires)
	e.resave(found, expires)
	e.advise(&c, []byte(found.record))
}

// size compares the values with what Go stores by default.
func (e *examination) size(record string) {
	const limit = 64 << 10 // the default of session.Options.MaxDataSize
	var values map[string]json.RawMessage
	_ = json.Unmarshal([]byte(record), &values)
	if size := len(record) - len(values["cookie"]); size > limit {
		e.note("its values have %d bytes, more than session.Options.MaxDataSize, which is %d by default. What Express has stored does not count, and Go may add as much again: beyond that a write at Go is answered 500 (ErrTooLarge)", size, limit)
	}
}

// end looks at when the record ends, and compares that with its cookie.
func (e *examination) end(found *stored, maxAge time.Duration, expires time.Time) {
	left := time.Until(found.ends)
	life, source := maxAge, "the cookie's maxAge"
	if maxAge == 0 {
		life, source = e.app.ttl, "the ttl of a session without maxAge (-ttl)"
	}
	switch {
	case found.ends.IsZero():
		e.problem("the key has no time to live: the app has disableTTL, or it is connect-redis 9 or later with the package redis before 5, which loses it. Such sessions never end: update the package redis")
		return
	case left < 0:
		e.problem("its time was up %v ago", (-left).Round(time.Second))
	case left > life+time.Minute:
		e.problem("it lives for another %v, and %s is %v: %s", left.Round(time.Second), source, life, longer(found, maxAge))
	default:
		e.ok("it lives for another %v if nobody uses it, until %s", left.Round(time.Second), found.ends.UTC().Format("2006-01-02 15:04:05 MST"))
		e.checked = append(e.checked, "when it ends")
	}
	if found.zone == "" {
		return
	}
	lag := found.ends.Sub(expires)
	switch {
	case expires.IsZero():
		e.cannotSee("the TimeZone of Node's connections", "its row does not say in which TimeZone Node wrote it; here it is %s. Log in again and run this at once: the row must live for %v. If it is some hours more or less, Node's connections have another TimeZone: set the same for both, \"SET TIME ZONE 'UTC'\" for example", found.zone, life)
	case lag < -time.Minute || lag > time.Minute && left > life+time.Minute:
		e.problem("its row ends %v from when its cookie does: Node's connections have another TimeZone than this one, which has %s. Set the same for both, \"SET TIME ZONE 'UTC'\" for example", lag.Round(time.Second), found.zone)
	case lag > 2*time.Second && isZone(lag):
		e.cannotSee("the TimeZone of Node's connections", "its row ends %v later than its cookie: it was used so much later than it was written, or Node's connections have another TimeZone than this one, which has %s. Log in again and run this at once: both must end at the same time", lag.Round(time.Second), found.zone)
	default:
		e.ok("Node's connections have the TimeZone of this one, %s", found.zone)
		e.checked = append(e.checked, "the TimeZone of Node's connections")
	}
}

// longer returns why a session may live longer than its maxAge or ttl.
func longer(found *stored, maxAge time.Duration) string {
	cause := "something else than connect-redis sets it, or the app's ttl is a function, which cannot be shared"
	if found.zone != "" {
		cause = "Node's connections have another TimeZone than this one"
	}
	if maxAge == 0 {
		return cause + ", or the store has another ttl: give it by -ttl"
	}
	return cause
}

// isZone reports whether two clocks may differ by this because of their time zones.
func isZone(d time.Duration) bool {
	const quarter = 15 * time.Minute
	off := (d.Abs() + quarter/2) % quarter
	return d.Abs() > quarter-time.Minute && d.Abs() < 15*time.Hour && off > quarter/2-time.Minute && off < quarter/2+time.Minute
}

// resave prints whether the app has resave: false. Only the expires of a cookie with maxAge tells
// when the record was written.
func (e *examination) resave(found *stored, expires time.Time) {
	const must = "which must not be: each request of Express then overwrites what Go saves"
	switch {
	case found.ends.IsZero(): // there is nothing to compare with
		fallthrough
	case expires.IsZero():
		e.cannotSee("resave", `whether the app has resave: true, the default, %s. Nothing in this session says when it was written. Look for resave: false in the app's source, or run the app with DEBUG=express-session and load a page that changes nothing in the session: "touching" is resave: false, "saving" is resave: true`, must)
	case found.ends.Sub(expires) > 2*time.Second:
		e.ok("it was used since it was written last, and not written again: if Express was what used it, resave is false, as it must be")
		e.checked = append(e.checked, "resave, if Express was the last to use it")
	default:
		e.cannotSee("resave and disableTouch", `it was written when its end was set last. Load a page of Express that changes nothing in the session, and run this again after some seconds. If this line is there again, and the session lives until the same time, the app's store has disableTouch: true, which must not be: users who only read are logged out. If it is there again with a later time, the app has resave: true, the default, %s`, must)
	}
}
