package session

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/device"
)

// Options.DeviceBound, the sessions of requests. The file device_endpoint.go answers the proofs.
//
// A response to a Login asks the browser to register a key. A browser that can does so, and gets a
// second cookie, which is good for a minute, so that the browser refreshes it soon. Refreshing it
// needs a signature by the key. From 10 seconds after the first refresh a request needs a good
// second cookie: only then is it known that the browser has got an answer, and a lost answer signs
// no user out. Browsers that do not register need no proof.
//
// The session cookie stays, because a request whose second cookie has run out must be
// distinguishable from a first visit: it gets ErrUnproven and no new session, whose cookie would
// overwrite the old one.
//
// The second cookie is a stamp: the time until which it is good, and an HMAC over it and the id of
// the record. So nothing about it is stored, it survives every renewal of the session cookie, and
// several may be good at a time: those that are in flight.

// devices is what a Manager needs to bind sessions to browsers.
type devices struct {
	m       *Manager
	cookies *cookies
	stamps  *device.Stamps
	period  time.Duration // how long a second cookie is good for
	name    string        // beginning of the name of a second cookie
	path    string        // where browsers send their proofs, escaped
	paths   [2]string     // the same as Handler sees it: the whole path, and without a prefix that was removed
	unbound atomic.Bool   // whether the line of this name was logged
}

const (
	devicePath = "/.session/device/" // the default of Options.DevicePath, before the name of the cookie

	// deviceGrace is the time for what is in flight: requests that were sent before the browser
	// got its second cookie or the newer one, and proofs whose answer was lost.
	deviceGrace = 10 * time.Second

	// firstProof is how long the second cookie lasts that answers a registration. It is shorter
	// than the two minutes before the end at which browsers refresh, so the next request does.
	firstProof = time.Minute

	maxRegistration = 5 * time.Minute // the age of a challenge of a registration
	extraChallenge  = time.Minute     // by how much a challenge may be older than DeviceBound
)

func newDevices(m *Manager, o *Options) (*devices, error) {
	stamps, err := device.NewStamps(o.Cookie.Name, o.Secrets)
	if err != nil {
		return nil, fmt.Errorf("session: Options.Secrets%w", err)
	}
	d := &devices{
		m: m, cookies: m.carrier.(*cookies), stamps: stamps, period: o.DeviceBound,
		name: secondName(o.Cookie.Name), path: o.DevicePath, paths: [2]string{o.DevicePath, o.DevicePath},
	}
	usual := devicePath + o.Cookie.Name
	switch {
	case o.DevicePath == "":
		d.path, d.paths = devicePath+url.PathEscape(o.Cookie.Name), [2]string{usual, usual}
	case strings.HasSuffix(o.DevicePath, usual):
		d.paths[1] = usual
	}
	d.cookies.device = d
	return d, nil
}

// secondName returns the beginning of the name of a second cookie. Chromium does not maintain a cookie
// whose name begins with __Host-Http- or __Http-, because it checks the name outside of a response.
func secondName(name string) string {
	for prefix, other := range map[string]string{"__host-http-": "__Host-Bound-", "__http-": "__Secure-Bound-"} {
		if n := len(prefix); len(name) >= n && strings.EqualFold(name[:n], prefix) {
			return other + name[n:]
		}
	}
	return name + "-bound"
}

// nameOfSession is the number of characters of a session's id in the name of its second cookie.
const nameOfSession = 8

// cookieName returns the name of the second cookie of the session with this id. Each session has a name
// of its own, because a browser may maintain several: it was closed and lost the session cookie, but
// not the key, or two tabs have logged in. If they had one name, the browser would refresh only the
// first session, and send its cookie with the session cookie of the other one.
func (d *devices) cookieName(id string) string { return d.name + "-" + id[:nameOfSession] }

// sessionOf returns the part of a second cookie's name that cookieName took from an id, or "" for
// another cookie.
func (d *devices) sessionOf(name string) string {
	part, ok := strings.CutPrefix(name, d.name)
	if !ok || len(part) != 1+nameOfSession || part[0] != '-' {
		return ""
	}
	return part[1:]
}

// isPath reports whether a request of this path is one for the endpoint.
func (d *devices) isPath(path string) bool { return path == d.paths[0] || path == d.paths[1] }

// isDevicePath reports whether browsers, proxies and package url agree on a path, which has no
// escapes.
func isDevicePath(p string) bool {
	return len(p) > 1 && len(p) <= 1024 && p[0] == '/' && path.Clean(p) == p && strings.IndexFunc(p, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._~/", r))
	}) < 0
}

// isBound reports whether a browser has proved that it has the key to which the session is bound.
func (m *Manager) isBound(rec *Record) bool {
	return m.device != nil && !body.BoundFrom(rec.Data).IsZero()
}

// DeviceBound reports whether the session is bound to the browser that logged in: see
// [Options].DeviceBound. It is true once the browser has proved that it has the key, usually with
// the second request after the Login.
func (s *Session) DeviceBound() bool {
	st := s.use()
	rec, user := st.record(), st.pending.user
	if rec == noRecord || user != "" && user != rec.User {
		return false
	}
	return s.m.isBound(st.stored.rec)
}

// lacksProof reports whether the request needs a second cookie for the session of rec and has
// none that is good. The time that counts is that of the request's arrival, because a handler may
// load the session late: after a slow upload, for example.
func (t *tx) lacksProof(rec *Record) bool {
	if t.m.device == nil {
		return false
	}
	from := body.BoundFrom(rec.Data)
	if from.IsZero() {
		return false
	}
	arrived := t.arrival()
	return !arrived.Before(from) && !t.s.origin.proves(rec.ID, arrived)
}

// noteUnproven reports the sessions whose browsers have not proved themselves, unless the request
// has another session.
func (t *tx) noteUnproven(unproven []*Record, best *stored) {
	if len(unproven) == 0 || best.status == statusLive {
		return
	}
	err := ErrUnproven
	if reason := t.s.origin.skipped(); reason != "" {
		err = fmt.Errorf("%w: it says %s", ErrUnproven, reason)
	}
	for _, rec := range unproven {
		t.note(EventUnproven, rec, err)
	}
}

// proves reports whether the request carries a second cookie for the session with this id that was
// good at that time.
func (d *devices) proves(r *http.Request, id string, at time.Time) (proven bool) {
	tried := 0
	for name, value := range cookiePairs(r.Header) {
		if d.sessionOf(name) != id[:nameOfSession] {
			continue
		}
		if tried++; tried > maxCandidates {
			break
		}
		if until, ok := d.stamps.Verify(device.KindCookie, value, id); ok && at.Before(until) {
			return true
		}
	}
	return false
}

// complete adds to the header of a response what goes with its session cookie: after a Login the
// offer to register a key, and after a Logout the deletion of the second cookies.
func (d *devices) complete(what cookie, h http.Header, r *http.Request, sent http.Cookie) {
	switch {
	case what.action == cookieDelete:
		deleted := 0
		for name := range cookiePairs(r.Header) {
			if d.sessionOf(name) == "" {
				continue
			}
			if deleted++; deleted > maxEnded {
				break
			}
			setSecond(h, sent, name, "", -1)
		}
	case what.bindID == "":
	case sent.Domain != "" || sent.Partitioned || !sent.Secure:
		if d.unbound.CompareAndSwap(false, true) {
			d.m.log.WarnContext(r.Context(), "session: session not bound to its browser because Options.Cookie.Adapt sets Domain or Partitioned; unset both in Adapt, or unset Options.DeviceBound (logged once)", "host", r.Host)
		}
	default:
		challenge := d.stamps.RegistrationChallenge(what.bindID, time.Now())
		h[device.RegistrationHeader] = []string{device.Registration(d.path, challenge)}
	}
}

// setSecond sets a second cookie, with the attributes of the session cookie.
func setSecond(h http.Header, like http.Cookie, name, value string, maxAge int) {
	like.Name, like.Value, like.MaxAge = name, value, maxAge
	if line := like.String(); line != "" { // otherwise the name, which may be from a request, is malformed
		h["Set-Cookie"] = append(h["Set-Cookie"], line)
	}
}
