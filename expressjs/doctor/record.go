package main

import (
	"encoding/json"
	"math"
	"time"

	"github.com/coatcheck/session/expressjs"
)

// content is the part of a record that the doctor examines.
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

// maxAge returns the maxAge of the cookie, or 0.
func (c *content) maxAge() time.Duration {
	ms, err := json.Number(string(c.Cookie.OriginalMaxAge)).Float64()
	if err != nil || ms < 1 {
		return 0
	}
	const slack = 10 // milliseconds; express-session 1.17 and later stores a few less than the option
	if up := math.Ceil(ms/1000) * 1000; up-ms <= slack {
		ms = up
	}
	return time.Duration(math.Min(ms, float64(longest.Milliseconds()))) * time.Millisecond
}

// record examines the record of a session and its end.
func (e *examination) record(found *stored) {
	if all := expressjs.Problems([]byte(found.record)); len(all) > 0 {
		for _, p := range all {
			e.problem("%s", p)
		}
		return
	}
	var c content
	if err := json.Unmarshal([]byte(found.record), &c); err != nil {
		e.problem("the record's cookie differs from those of express-session: a member has another type")
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

// size compares the size of the values with the default limit of Go.
func (e *examination) size(record string) {
	const limit = 64 << 10 // the default of session.Options.MaxDataSize
	var values map[string]json.RawMessage
	_ = json.Unmarshal([]byte(record), &values)
	if size := len(record) - len(values["cookie"]); size > limit {
		e.note("the values have %d bytes, more than session.Options.MaxDataSize, which is %d by default. Values that Express has stored do not count, and Go may add up to MaxDataSize: a larger write at Go is answered 500 (ErrTooLarge)", size, limit)
	}
}

// end compares the end of the record with its cookie.
func (e *examination) end(found *stored, maxAge time.Duration, expires time.Time) {
	left := time.Until(found.ends)
	life, source := maxAge, "the cookie's maxAge"
	if maxAge == 0 {
		life, source = e.app.ttl, "the ttl of a session without maxAge (-ttl)"
	}
	switch {
	case found.ends.IsZero():
		e.problem("the key has no time to live, so the session never ends: unset disableTTL in the app, or, with connect-redis 9 or later, update the package redis to 5 or later, because older ones lose the time")
		return
	case left < 0:
		e.problem("the record expired %v ago", (-left).Round(time.Second))
	case left > life+time.Minute:
		e.problem("the record lives for another %v, and %s is %v: %s", left.Round(time.Second), source, life, longer(found, maxAge))
	default:
		e.ok("the record lives for another %v without a use, until %s", left.Round(time.Second), found.ends.UTC().Format("2006-01-02 15:04:05 MST"))
		e.checked = append(e.checked, "when it ends")
	}
	if found.zone == "" {
		return
	}
	lag := found.ends.Sub(expires)
	switch {
	case expires.IsZero():
		e.cannotSee("the TimeZone of Node's connections", "the row does not contain the TimeZone in which Node wrote it; this connection has %s. Log in again and run this at once: the row must live for %v. If the difference is some hours, Node's connections have another TimeZone: set the same for both, \"SET TIME ZONE 'UTC'\" for example", found.zone, life)
	case lag < -time.Minute || lag > time.Minute && left > life+time.Minute:
		e.problem("the end of the row differs by %v from that of its cookie: Node's connections have another TimeZone than this one, which has %s. Set the same for both, \"SET TIME ZONE 'UTC'\" for example", lag.Round(time.Second), found.zone)
	case lag > 2*time.Second && isZone(lag):
		e.cannotSee("the TimeZone of Node's connections", "the row ends %v later than its cookie: the session was used that much later than it was written, or Node's connections have another TimeZone than this one, which has %s. Log in again and run this at once: both must end at the same time", lag.Round(time.Second), found.zone)
	default:
		e.ok("Node's connections have the same TimeZone as this one, %s", found.zone)
		e.checked = append(e.checked, "the TimeZone of Node's connections")
	}
}

// longer returns why a session may live longer than its maxAge or ttl.
func longer(found *stored, maxAge time.Duration) string {
	cause := "another program than connect-redis sets it, or the app's ttl is a function, which cannot be shared"
	if found.zone != "" {
		cause = "Node's connections have another TimeZone than this one"
	}
	if maxAge == 0 {
		return cause + ", or the store has another ttl: set it by -ttl"
	}
	return cause
}

// isZone reports whether two clocks may differ by d because of their time zones.
func isZone(d time.Duration) bool {
	const quarter = 15 * time.Minute
	off := (d.Abs() + quarter/2) % quarter
	return d.Abs() > quarter-time.Minute && d.Abs() < 15*time.Hour && off > quarter/2-time.Minute && off < quarter/2+time.Minute
}

// resave prints whether the app has resave: false. The time at which the record was written is
// known only from the expires of a cookie with maxAge.
func (e *examination) resave(found *stored, expires time.Time) {
	const must = "with which each request of Express overwrites what Go saves"
	switch {
	case found.ends.IsZero(): // there is nothing to compare with
		fallthrough
	case expires.IsZero():
		e.cannotSee("resave", `whether the app has resave: true, the default, %s. The session does not contain the time at which it was written. Look for resave: false in the app's source, or run the app with DEBUG=express-session and load a page that changes nothing in the session: "touching" is resave: false, "saving" is resave: true`, must)
	case found.ends.Sub(expires) > 2*time.Second:
		e.ok("the session was used after its last write: if Express used it, resave is false, as required")
		e.checked = append(e.checked, "resave, if Express was the last to use it")
	default:
		e.cannotSee("resave and disableTouch", `the last write also set the end of the session. Load a page of Express that changes nothing in the session, and run this again after some seconds. If this line appears again with the same end of the session, the app's store has disableTouch: true, with which users who only read are logged out. If it appears again with a later end, the app has resave: true, the default, %s`, must)
	}
}
