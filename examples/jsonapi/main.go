// Jsonapi is a JSON API and a front end on another port: another origin of the same site.
//
//	go run ./examples/jsonapi
//
// The front end is at http://localhost:5173, and its script calls the API at http://localhost:8080.
// Log in as alice with the password "wonderland". Use the name localhost for both: to a browser
// 127.0.0.1 is another site, to whose requests it adds no cookie. The cookie is Secure: Safari keeps it
// on localhost only if Options.Cookie.Insecure is set.
package main

import (
	"crypto/subtle"
	_ "embed"
	"encoding/json"
	"errors"
	"log"
	"log/slog"
	"net/http"

	"github.com/coatcheck/session"
)

const frontEnd = "http://localhost:5173"

//go:embed frontend.html
var page []byte

var clicks = session.NewKey[int]("clicks")

// passwords stands for the table of users. A real table has hashes (golang.org/x/crypto/bcrypt), and a
// real login limits the attempts (docs/recipes/login.md).
var passwords = map[string]string{"alice": "wonderland", "bob": "builder"}

// api returns the API. The zero opts are all defaults: README lists what is set most often.
func api(opts session.Options) http.Handler {
	opts.ErrorHandler = failed
	sessions := session.Must(session.New(&opts))
	member := func(next http.HandlerFunc) http.Handler {
		return sessions.RequireUser(next, http.HandlerFunc(unauthorized))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", login)
	mux.Handle("GET /me", member(me))
	mux.Handle("POST /clicks", member(click))
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Logout() })
	protection := http.NewCrossOriginProtection() // other origins cannot send a POST
	if err := protection.AddTrustedOrigin(frontEnd); err != nil {
		log.Fatal(err)
	}
	return cors(protection.Handler(sessions.Handler(mux)))
}

// cors lets the front end send requests with the cookie and read the responses, those of
// failed too: it is outermost.
func cors(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Add("Vary", "Origin")
		if r.Header.Get("Origin") == frontEnd { // never "*", never any origin that asks
			h.Set("Access-Control-Allow-Origin", frontEnd)
			h.Set("Access-Control-Allow-Credentials", "true")
			if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
				h.Set("Access-Control-Allow-Methods", "GET, POST")
				h.Set("Access-Control-Allow-Headers", "Content-Type")
				w.WriteHeader(http.StatusNoContent)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func login(w http.ResponseWriter, r *http.Request) {
	var form struct{ User, Password string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&form); err != nil {
		problem(w, http.StatusBadRequest, "The body is not a JSON object with user and password.")
		return
	}
	password, isKnown := passwords[form.User]
	if !isKnown || subtle.ConstantTimeCompare([]byte(password), []byte(form.Password)) == 0 {
		problem(w, http.StatusForbidden, "The name or the password is wrong.")
		return
	}
	session.From(r.Context()).Login(form.User)
	me(w, r)
}

func me(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	answer(w, http.StatusOK, map[string]any{"user": s.User(), "clicks": clicks.Get(s)})
}

// click counts one click. UpdateNow stores the number before it is sent, so that concurrent
// requests answer with different numbers.
func click(w http.ResponseWriter, r *http.Request) {
	n, err := clicks.UpdateNow(r.Context(), session.From(r.Context()), func(n int) int { return n + 1 })
	if err != nil {
		failed(w, r, err)
		return
	}
	answer(w, http.StatusOK, map[string]any{"clicks": n})
}

// unauthorized answers clients that are not logged in: the front end shows its login form.
func unauthorized(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("WWW-Authenticate", `Cookie realm="api"`) // RFC 9110, 15.5.2; not Basic, for which browsers open a dialog
	problem(w, http.StatusUnauthorized, "Please log in.")
}

// failed answers requests whose session cannot be loaded or saved. While the store fails the user
// may still be logged in: with 503 the front end tries again, and shows no login form.
func failed(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, session.ErrEnded), errors.Is(err, session.ErrReplaced): // by a concurrent logout or login
		unauthorized(w, r)
		return
	case errors.Is(err, session.ErrStore):
		w.Header().Set("Retry-After", "5")
		problem(w, http.StatusServiceUnavailable, "Please try again in a moment.")
	default:
		problem(w, http.StatusInternalServerError, "That did not work.")
	}
	slog.ErrorContext(r.Context(), "session", "err", err)
}

// problem answers with an error (RFC 9457).
func problem(w http.ResponseWriter, status int, title string) {
	w.Header().Set("Content-Type", "application/problem+json")
	answer(w, status, map[string]any{"status": status, "title": title})
}

func answer(w http.ResponseWriter, status int, v any) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		log.Print(err)
	}
}

func main() {
	go func() {
		log.Fatal(http.ListenAndServe("localhost:5173", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(page) })))
	}()
	log.Print(frontEnd, " (alice, wonderland)")
	log.Fatal(http.ListenAndServe("localhost:8080", api(session.Options{})))
}
