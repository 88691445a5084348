package site

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coatcheck/session"
)

// Keys of the session's values, besides the user and the flashes.
var (
	visits    = session.NewKey[int]("visits")
	device    = session.NewKey[string]("device")     // a name of the device for the user: "Firefox on Linux"
	setCookie = session.NewKey[string]("set-cookie") // the Set-Cookie header of the login, with its value masked
	offer     = session.NewKey[string]("offer")      // the header of the login that offers to bind the session, with its challenge masked
)

const remembered = 30 * 24 * time.Hour

// app is the routes of the example and their Manager.
type app struct {
	sessions *session.Manager
	closing  <-chan struct{} // closed when the server is about to stop
}

// newApp returns the whole site. Every change is a POST. A POST that another site made is
// refused before the session is loaded.
func newApp(sessions *session.Manager, closing <-chan struct{}) http.Handler {
	a := app{sessions, closing}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.home)
	mux.HandleFunc("GET /login", a.form)
	mux.HandleFunc("POST /login", a.login)
	mux.Handle("GET /dashboard", a.member(a.dashboard))
	mux.Handle("POST /logout", a.member(a.logout))
	mux.Handle("GET /confirm", a.member(a.confirmForm))
	mux.Handle("POST /confirm", a.member(a.confirm))
	mux.Handle("POST /devices/revoke", a.member(a.revoke))
	mux.Handle("POST /devices/revoke-others", a.member(recently(a.revokeOthers)))
	mux.Handle("POST /devices/revoke-all", a.member(recently(a.revokeAll)))
	mux.HandleFunc("GET /events", a.events)
	mux.HandleFunc("GET /live.js", asset)
	mux.HandleFunc("GET /style.css", asset)
	mux.HandleFunc("GET /icon.svg", asset)
	return secure(http.NewCrossOriginProtection().Handler(sessions.Handler(mux)))
}

func (a app) home(w http.ResponseWriter, r *http.Request) {
	to := "/login"
	if session.From(r.Context()).User() != "" {
		to = "/dashboard"
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// form shows the login form. It reads the session without storing one.
func (a app) form(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	flashes := s.Flashes()
	switch {
	case s.Ended():
		flashes = append(flashes, session.Flash{Kind: "bad", Text: hasEnded})
	case errors.Is(s.Err(), session.ErrUnproven):
		flashes = append(flashes, session.Flash{Kind: "bad", Text: isNotBound})
	}
	render(w, http.StatusOK, page{User: s.User(), Flashes: flashes})
}

const hasEnded = "Your session has ended. Please log in again."

// login logs in any user. A real program checks a password first.
func (a app) login(w http.ResponseWriter, r *http.Request) {
	if err := parseForm(w, r); err != nil {
		answer(w, r, http.StatusBadRequest, "That form could not be read.")
		return
	}
	user := cmp.Or(strings.TrimSpace(r.PostFormValue("userId")), "user123")
	if !presentable(user) {
		answer(w, r, http.StatusBadRequest, "A name has at most 40 characters, and all of them can be seen.")
		return
	}

	s := session.From(r.Context())
	s.Login(user)
	device.Set(s, describe(r.UserAgent()))
	if r.PostFormValue("remember") != "" {
		s.Remember(remembered)
	}
	if wantsHTML(r) {
		s.AddFlash("good", fmt.Sprintf("You are logged in as %s.", user))
		http.Redirect(w, r, "/dashboard", http.StatusSeeOther)
	} else {
		text(w, http.StatusOK, "Logged in and session created!")
	}

	// The header is complete now, including the cookie, so the page can explain it. A change
	// after this point is saved when the handler returns.
	if line := w.Header().Get("Set-Cookie"); line != "" {
		setCookie.Set(s, mask(line))
	}
	if line := w.Header().Get("Secure-Session-Registration"); line != "" {
		offer.Set(s, maskChallenge(line))
	}
}

// parseForm parses a small form of either encoding.
func parseForm(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
	if err := r.ParseForm(); err != nil {
		return err
	}
	if err := r.ParseMultipartForm(4 << 10); !errors.Is(err, http.ErrNotMultipart) {
		return err
	}
	return nil
}

func presentable(name string) bool {
	return utf8.ValidString(name) && utf8.RuneCountInString(name) <= 40 &&
		strings.IndexFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// member restricts a page to logged-in users.
func (a app) member(next func(http.ResponseWriter, *http.Request, *session.Session)) http.Handler {
	return a.sessions.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next(w, r, session.From(r.Context()))
	}), http.HandlerFunc(unauthorized))
}

// unauthorized answers a request without a user, with the reason.
func unauthorized(w http.ResponseWriter, r *http.Request) {
	s, reason := session.From(r.Context()), "Please log in."
	switch {
	case !wantsHTML(r):
	case errors.Is(s.Err(), session.ErrUnproven):
		reason = isNotBound
	case errors.Is(s.Err(), session.ErrReplaced):
		reason = "You have just logged in again in another tab. Please reload this page."
	case s.Ended():
		reason = hasEnded
	}
	answer(w, r, http.StatusUnauthorized, reason)
}

func (a app) dashboard(w http.ResponseWriter, r *http.Request, s *session.Session) {
	visits.Update(s, func(n int) int { return n + 1 })
	if !wantsHTML(r) {
		text(w, http.StatusOK, fmt.Sprintf("Welcome back, %s!", s.User()))
		return
	}
	devices, err := a.devices(r, s)
	if err != nil {
		unavailable(w, r, err)
		return
	}
	line := setCookie.Get(s)
	render(w, http.StatusOK, page{
		User: s.User(), Session: s.ID(), Dashboard: true, Flashes: s.Flashes(), Visits: visits.Get(s),
		Devices: devices, SetCookie: line, Attributes: explain(line),
		IsBound: s.DeviceBound(), Binding: binding(offer.Get(s), s.DeviceBound()),
	})
}

func (a app) logout(w http.ResponseWriter, r *http.Request, s *session.Session) {
	s.Logout()
	done(w, r, s, "/login", "You are signed out.")
}
