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

// page is the data of page.html: the dashboard, the confirmation of the user, or the login
// form.
type page struct {
	User       string
	Session    string // id of the session, on the dashboard
	Dashboard  bool
	Confirm    bool
	Flashes    []session.Flash
	Visits     int
	Devices    []deviceRow
	SetCookie  string
	Attributes []attribute
	IsBound    bool        // the session is bound to this browser
	Binding    []attribute // how that came about; nil: the server does not bind sessions
}

// render writes the page, completely or not at all.
func render(w http.ResponseWriter, status int, p page) {
	var b bytes.Buffer
	if err := site.Execute(&b, p); err != nil {
		slog.Error("page.html", "err", err)
		http.Error(w, "The page could not be rendered.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

// text writes exactly s, without a newline at its end.
func text(w http.ResponseWriter, status int, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, s)
}

// answer refuses a request: a browser gets the login form with the reason, other clients get
// the reason as text.
func answer(w http.ResponseWriter, r *http.Request, status int, reason string) {
	if !wantsHTML(r) {
		text(w, status, reason)
		return
	}
	s := session.From(r.Context())
	flashes := append(s.Flashes(), session.Flash{Kind: "bad", Text: reason})
	render(w, status, page{User: s.User(), Flashes: flashes})
}

// done confirms a request: a browser is redirected to a page that shows the message, other
// clients get the message as text.
func done(w http.ResponseWriter, r *http.Request, s *session.Session, to, message string) {
	if !wantsHTML(r) {
		text(w, http.StatusOK, message)
		return
	}
	s.AddFlash("good", message)
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// unavailable answers a request that failed because of the store, without details.
func unavailable(w http.ResponseWriter, r *http.Request, err error) {
	slog.ErrorContext(r.Context(), "request failed", "err", err, "path", r.URL.Path)
	text(w, http.StatusServiceUnavailable, "That did not work. Please try again.")
}

// wantsHTML reports whether the client is a browser.
func wantsHTML(r *http.Request) bool {
	return strings.Contains(strings.Join(r.Header["Accept"], ","), "text/html")
}

// asset serves one of the embedded files.
func asset(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "public, max-age=300")
	http.ServeFileFS(w, r, files, r.URL.Path)
}

// secure sets headers of every response: the site loads nothing from other sites and must not
// be framed.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Add("Vary", "Accept") // a browser gets a page, other clients a line of text
		next.ServeHTTP(w, r)
	})
}
