package main

import (
	_ "embed"
	"html/template"
	"net/http"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
	"github.com/redis/go-redis/v9"
)

// Ordinary keys read the values that Express writes into the session.
var (
	expressViews = session.NewKey[int]("expressViews")
	goViews      = session.NewKey[int]("goViews")
)

// newSessions returns a Manager for the sessions of the Express app: the same secret, the same
// cookie, the same records.
func newSessions(client redis.UniversalClient, secret string, production bool) (*session.Manager, error) {
	tokens, err := expressjs.Tokens(secret)
	if err != nil {
		return nil, err
	}
	store, err := expressjs.NewRedisStore(client, &expressjs.Options{
		Cookie:     expressjs.Cookie{MaxAge: 24 * time.Hour, SameSite: "lax"}, // as in node/app.js
		UserMember: "userId",
	})
	if err != nil {
		return nil, err
	}
	return session.New(&session.Options{
		Store:    store,
		Tokens:   tokens,
		Lifetime: 30 * 24 * time.Hour, // absolute end of a login at Go; Express has no such end
		Cookie:   session.CookieOptions{Name: "connect.sid", Insecure: !production},
	})
}

// newApp returns the Go app, with the routes that have moved.
func newApp(sessions *session.Manager) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /dashboard", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if s.User() == "" {
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		goViews.Update(s, func(n int) int { return n + 1 })
		show(w, map[string]any{"User": s.User(), "Go": goViews.Get(s), "Express": expressViews.Get(s), "Expires": s.Expires().UTC().Format("2 January, 15:04 MST")})
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		session.From(r.Context()).Logout()
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		_, _ = w.Write(style)
	})
	return sessions.Handler(http.NewCrossOriginProtection().Handler(mux))
}

//go:embed style.css
var style []byte

//go:embed dashboard.html
var dashboard string

var page = template.Must(template.New("").Parse(dashboard))

func show(w http.ResponseWriter, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = page.Execute(w, data)
}
