package simulate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
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
	who     string
	browser *browser   // that sent it, or nil
	token   string     // the value of its cookie, or ""
	own     string     // another token that it brings, before that, or ""
	rng     *rand.Rand // of what happens to it, whatever happens to others
	passive bool       // it is not the user's doing
	ops     []op
	way     time.Duration // that it takes to the server, if the network is bad, beside what chance adds
	delay   time.Duration // that its response takes, likewise

	onHeader    func() // called as the header leaves, or nil
	isDelivered bool   // the client will see the header

	sent, loaded, ended     time.Time
	stored                  time.Time // when the newest token of this request was
	storedIn                *sessionTruth
	storedNumber            int    // of that token
	storedKey               string // the hash of its key
	s                       *session.Session
	id, user                string // as it loaded the session
	marks                   []int  // likewise
	err                     error  // likewise
	idAfter                 string // as the header left, or the handler returned
	errSent                 error  // as the header left
	errAfter                error  // as the handler returned
	status                  int
	cookie                  *http.Cookie // of the response
	headers                 http.Header
	events                  map[session.EventKind]int
	calls                   int
	isDisturbed             bool            // a call of the store failed for it
	isRefused               bool            // the store had no room for it
	failures, failuresAtEnd int             // how many did, and until it stored its last tombstone
	unsure                  map[string]bool // ids of sessions that it has created, and was told an error
	failedAt                time.Time       // when the last one did
	hasAnswer               bool            // of the issuer, once at least
	hasRefreshed            bool            // since its last Refresh began
	overlaps                bool            // with another request that has the same session
	isRefreshLost           bool
	leaseEnd                time.Time // of its last Refresh, by its process's clock
	storedByLogin           bool
	mustReplay              bool        // EventReplayed must tell of its token
	idleEnd                 time.Time   // of the session, as it arrived: not before that
	isSlow                  bool        // the store was slow for it
	isLost                  bool        // the client does not get the response
	beside                  []*exchange // that ran at the same time: see coverage

	// What its handler has asked for so far.
	login          string
	logsOut        string // the id of the session that the last Logout ends
	logout, revoke bool
	renewal        bool // explicit, and not committed yet
	remember       time.Duration
	endBy          time.Time // the earliest since the last Login, that was in time; zero: none
	ends           bool      // by an EndBy whose time had passed
	made           []int     // marks since the last Login or Logout
	grows          bool      // it has asked for more values than there were
	logsIn         string    // the user of the last Login, if that was in time and nothing has taken it back
	panics         bool
	reloads        bool // it has looked again for its session
	hasLeft        bool // a goroutine behind
}

// exchangeOf returns the exchange that ctx is of, or nil.
func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(taskKey{}).(*exchange)
	return x
}

const cookieName = "__Host-Http-session"

// send carries out a request from its arrival to the end of its handler.
func (w *world) send(task int, x *exchange) {
	w.exchanges++
	x.w, x.n, x.task, x.sent = w, w.exchanges, task, time.Now()
	x.p = w.processes[x.rng.IntN(len(w.processes))]
	x.events, x.headers, x.status, x.unsure = map[session.EventKind]int{}, http.Header{}, 0, map[string]bool{}
	r := &http.Request{
		Method: "POST", URL: pageURL, Host: "app.test", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Sec-Fetch-Site": {"same-origin"}}, RemoteAddr: "192.0.2.1:1234", RequestURI: "/",
	}
	for _, token := range []string{x.own, x.token} {
		if token != "" {
			r.Header.Add("Cookie", cookieName+"="+token)
		}
	}
	passively := ""
	if x.passive {
		passively = " passively"
	}
	w.log(x, "is sent by %s%s to process %d with %s; its handler %s", x.who, passively, x.p.n, w.truth.nameOf(x.token), names(x.ops))
	if x.own != "" {
		w.log(x, "brings %s too", w.truth.nameOf(x.own))
	}
	w.busy++
	w.truth.begins(x)
	w.coverage.begins(x)
	func() {
		defer func() {
			if v := recover(); v != nil && v != http.ErrAbortHandler {
				w.truth.violation(x, "no panic", "%v, in %s", v, panickedIn())
			}
		}()
		x.p.manager.Handler(http.HandlerFunc(x.serve)).ServeHTTP(&responseWriter{x}, r.WithContext(context.WithValue(context.Background(), taskKey{}, x)))
	}()
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

// panickedIn returns where a panic that was recovered from comes from: the innermost
// function of this module.
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

// found says as whose request the handler began.
func (x *exchange) found() string {
	switch {
	case x.loaded.IsZero():
		return "did not run"
	case x.user == "":
		return "found nobody logged in"
	}
	return "found " + x.user + " logged in"
}

func (x *exchange) statusText() string {
	switch {
	case x.p.isDead:
		return "by nobody, for the process has died"
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

// A responseWriter keeps the header as it leaves.
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
