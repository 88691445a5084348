package site

import (
	"bytes"
	"embed"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/coatcheck/session"
)

//go:embed page.html live.js style.css icon.svg
var files embed.FS

var site = template.Must(template.ParseFS(files, "page.html"))

// A page is what page.html shows: the dashboard, the question whether it is still the
// same user, or else the login form.
type page struct {
	User       string
	Session    string // the id, of the dashboard's
	Dashboard  bool
	Confirm    bool
	Flashes    []session.Flash
	Visits     int
	Devices    []deviceRow
	SetCookie  string
	Attributes []attribute
}

// render writes the page, whole or not at all.
func render(w http.ResponseWriter, status int, p page) {
	var b bytes.Buffer
	if err := site.Execute(&b, p); err != nil {
		slog.Error("page.html", "err", err)
		http.Error(w, "The page could not be made.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

// text writes exactly s, with no newline at its end.
func text(w http.ResponseWriter, status int, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, s)
}

// answer says no: a browser gets the login form with the reason above it,
// everybody else the reason.
func answer(w http.ResponseWriter, r *http.Request, status int, reason string) {
	if !wantsHTML(r) {
		text(w, status, reason)
		return
	}
	s := session.From(r.Context())
	flashes := append(s.Flashes(), session.Flash{Kind: "bad", Text: reason})
	render(w, status, page{User: s.User(), Flashes: flashes})
}

// done says yes: a browser is sent on to a page that shows the message,
// everybody else gets the message.
func done(w http.ResponseWriter, r *http.Request, s *session.Session, to, message string) {
	if !wantsHTML(r) {
		text(w, http.StatusOK, message)
		return
	}
	s.AddFlash("good", message)
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// unavailable says that it was not done, and not by whose fault.
func unavailable(w http.ResponseWriter, r *http.Request, err error) {
	slog.ErrorContext(r.Context(), "request failed", "err", err, "path", r.URL.Path)
	text(w, http.StatusServiceUnavailable, "That did not work. Please try again.")
}

// wantsHTML tells a browser from a program.
func wantsHTML(r *http.Request) bool {
	return strings.Contains(strings.Join(r.Header["Accept"], ","), "text/html")
}

// asset serves one of the embedded files.
func asset(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "public, max-age=300")
	http.ServeFileFS(w, r, files, r.URL.Path)
}

// secure sets what every response of the site has: it needs nothing from
// elsewhere, and nobody may frame it.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Add("Vary", "Accept") // a browser gets a page where a program gets a line
		next.ServeHTTP(w, r)
	})
}
