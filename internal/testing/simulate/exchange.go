package simulate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/coatcheck/session"
)

// An exchange is one request and its response.
type exchange struct {
	w       *world
	p       *process
	n, task int
	sender  string
	browser *browser // sender, or nil if no browser sent the request
	token   string   // value of the cookie, or ""
	own     string   // another token, sent before token, or ""
	seconds []secondCookie
	skipped string     // why the browser could not refresh the second cookie, or ""
	rng     *rand.Rand // randomness of what happens to this request, independent of other requests
	passive bool       // not caused by the user
	ops     []op
	way     time.Duration // delay of the request on a bad network, in addition to the random delay
	delay   time.Duration // delay of the response, likewise

	proves *sessionTruth // the session of a request to the endpoint; nil: another request
	does   string        // what such a request does, in words

	onHeader    func() // called when the header is sent, or nil
	isDelivered bool   // the client will get the header

	left                    time.Time // when a browser sent it, before it was on its way
	sent, loaded, ended     time.Time
	stored                  time.Time // time at which the newest token of this request was stored
	storedIn                *sessionTruth
	storedNumber            int    // number of that token
	storedKey               string // hash of the key of that token
	s                       *session.Session
	id, user                string // after the first load of the session
	marks                   []int  // likewise
	err                     error  // likewise
	idAfter                 string // when the header was sent, or the handler returned
	errSent                 error  // when the header was sent
	errAfter                error  // when the handler returned
	status                  int
	cookie                  *http.Cookie // first cookie of the response
	headers                 http.Header
	events                  map[session.EventKind]int
	calls                   int
	isDisturbed             bool            // a store call of this request failed
	isRefused               bool            // the store had no room for a record of this request
	failures, failuresAtEnd int             // failed store calls, and those before the request stored its last tombstone
	unsure                  map[string]bool // ids of sessions whose Create returned an error and may have been applied
	failedAt                time.Time       // time of the last failed store call
	hasAnswer               bool            // the issuer has answered at least once
	hasRefreshed            bool            // the issuer was called since the last Refresh began
	overlaps                bool            // another request of the same session overlaps this one
	isRefreshLost           bool
	leaseEnd                time.Time // end of the lease of the last Refresh, by the clock of the process
	storedByLogin           bool
	mustReplay              bool         // EventReplayed must report the token
	was                     sessionTruth // the session of the token when the request arrived
	isSlow                  bool         // a store call of this request was slow
	isLost                  bool         // the client does not get the response
	deletes                 []string     // names of the second cookies that the response deletes
	beside                  []*exchange  // overlapping requests: see coverage

	// Actions of the handler so far.
	login          string
	logsOut        string // id of the session that the last Logout ends
	logout, revoke bool
	renewal        bool // an explicit renewal is pending
	remember       time.Duration
	endBy          time.Time // earliest EndBy since the last Login, before the header was sent; zero: none
	ends           bool      // an EndBy with a time in the past ended the session
	made           []int     // marks since the last Login or Logout
	grows          bool      // the handler has added values
	logsIn         string    // user of the last Login, if it was before the header was sent and was not reverted
	panics         bool
	reloads        bool // the handler has reloaded the session
	hasLeft        bool // a goroutine continues after the handler
}

// exchangeOf returns the exchange of ctx, or nil.
func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(taskKey{}).(*exchange)
	return x
}

const cookieName = "__Host-Http-session"

// send executes a request, from its arrival to the end of its handler.
func (w *world) send(task int, x *exchange) {
	w.prepare(task, x)
	r := newRequest("/", http.Header{})
	for _, token := range []string{x.own, x.token} {
		if token != "" {
			r.Header.Add("Cookie", cookieName+"="+token)
		}
	}
	for _, c := range x.seconds {
		r.Header.Add("Cookie", c.name+"="+c.value)
	}
	passively := ""
	if x.passive {
		passively = " passively"
	}
	w.log(x, "is sent by %s%s to process %d with %s; its handler %s", x.sender, passively, x.p.n, w.truth.nameOf(x.token), names(x.ops))
	if x.own != "" {
		w.log(x, "also carries %s", w.truth.nameOf(x.own))
	}
	w.busy++
	w.truth.begins(x)
	w.coverage.begins(x)
	w.handle(x, &responseWriter{x}, r, x.serve)
	x.ended = time.Now()
	if x.status == 0 && !x.panics {
		(&responseWriter{x}).WriteHeader(http.StatusOK)
	}
	if x.s != nil {
		x.errAfter = x.s.Err()
	}
	w.log(x, "is answered %s%s; its handler %s%s; store calls: %d%s", x.statusText(), w.truth.newToken(x), x.found(), because(x), x.calls, eventsOf(x))
	w.truth.finished(x)
	w.coverage.ends(x)
	w.busy--
}

// prepare chooses the process of a request that is about to arrive.
func (w *world) prepare(task int, x *exchange) {
	w.exchanges++
	x.w, x.n, x.task, x.sent = w, w.exchanges, task, time.Now()
	x.p = w.processes[x.rng.IntN(len(w.processes))]
	x.events, x.headers, x.status, x.unsure = map[session.EventKind]int{}, http.Header{}, 0, map[string]bool{}
}

func newRequest(path string, h http.Header) *http.Request {
	h.Set("Sec-Fetch-Site", "same-origin")
	return &http.Request{
		Method: "POST", URL: &url.URL{Scheme: "https", Host: "app.test", Path: path}, Host: "app.test", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, RemoteAddr: "192.0.2.1:1234", RequestURI: path,
	}
}

// handle lets the process of a request handle it.
func (w *world) handle(x *exchange, rw http.ResponseWriter, r *http.Request, f http.HandlerFunc) {
	defer func() {
		if v := recover(); v != nil && v != http.ErrAbortHandler {
			w.truth.violation(x, "no panic", "%v, in %s", v, panickedIn())
		}
	}()
	x.p.manager.Handler(f).ServeHTTP(rw, r.WithContext(context.WithValue(context.Background(), taskKey{}, x)))
}

// panickedIn returns the origin of a recovered panic: the innermost function of this module.
func panickedIn() string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	for {
		f, more := frames.Next()
		if strings.Contains(f.Function, "coatcheck/session") {
			return fmt.Sprintf("%s (%s:%d)", f.Function, filepath.Base(f.File), f.Line)
		}
		if !more {
			return "an unknown function"
		}
	}
}

// found describes the user of the session when the handler began.
func (x *exchange) found() string {
	switch {
	case x.loaded.IsZero():
		return "did not run"
	case x.user == "":
		return "found an anonymous session"
	}
	return "found " + x.user + " logged in"
}

func (x *exchange) statusText() string {
	switch {
	case x.p.isDead:
		return "by no process, because the process has died"
	case x.status == 0:
		return "by a broken connection"
	}
	return fmt.Sprint(x.status)
}

func because(x *exchange) string {
	if err := errors.Join(x.err, x.errAfter); err != nil {
		return " (" + strings.ReplaceAll(err.Error(), "\n", "; ") + ")"
	}
	return ""
}

func eventsOf(x *exchange) (s string) {
	var kinds []string
	for kind := range x.events {
		kinds = append(kinds, string(kind))
	}
	slices.Sort(kinds)
	if len(kinds) > 0 {
		s = ", events: " + strings.Join(kinds, " ")
	}
	return s
}

// serve is the application.
func (x *exchange) serve(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	x.s = s
	if x.passive {
		s.MarkPassive()
	}
	x.user, x.err, x.id, x.marks = s.User(), s.Err(), s.ID(), marks.Get(s)
	x.loaded = time.Now()
	x.w.truth.loaded(x)
	for _, o := range x.ops {
		if x.p.isDead {
			return
		}
		o.do(x, w)
	}
}

// A responseWriter keeps the header as it is when it is sent.
type responseWriter struct{ x *exchange }

func (w *responseWriter) Header() http.Header { return w.x.headers }
func (w *responseWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return len(b), nil
}

func (w *responseWriter) WriteHeader(status int) {
	x := w.x
	if x.status != 0 {
		return
	}
	x.status, x.headers = status, x.headers.Clone()
	cookies := (&http.Response{Header: x.headers}).Cookies()
	cookies = slices.DeleteFunc(cookies, func(c *http.Cookie) bool {
		if !strings.HasPrefix(c.Name, secondPrefix) {
			return false
		}
		x.deletes = append(x.deletes, c.Name)
		if c.MaxAge >= 0 {
			x.w.truth.violation(x, "the endpoint", "a response of another path sets the second cookie")
		}
		return true
	})
	if len(cookies) > 1 {
		x.w.truth.violation(x, "one cookie", "the response has %d cookies", len(cookies))
	}
	if len(cookies) > 0 {
		x.cookie = cookies[0]
	}
	if x.s != nil {
		x.idAfter, x.errSent = x.s.ID(), x.s.Err()
	}
	x.w.truth.headerLeft(x)
	if x.onHeader != nil && !x.p.isDead {
		x.onHeader()
	}
}
