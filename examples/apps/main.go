// Apps serves browsers, which have a cookie, and apps, which store a token themselves, on the same
// routes. Each sees all devices of the user, and can log out any of them.
//
//	go run ./examples/apps
//
// Open http://localhost:8080, and log in as alice with the password "wonderland". (The cookie is Secure:
// Safari keeps it on localhost only if Options.Cookie.Insecure is set.) Then be an app:
//
//	curl -i -H "Authorization: Bearer none" -d "user=alice&password=wonderland&device=phone" localhost:8080/login
//	curl -H "Authorization: Bearer $TOKEN" localhost:8080/
//
// where TOKEN is the Session-Token of the first response. An app stores each Session-Token that it
// gets, also an empty one, which means that it has logged out. At a 401 it asks its user to log in.
package main

import (
	"cmp"
	"crypto/rand"
	"crypto/subtle"
	_ "embed"
	"encoding/json"
	"html/template"
	"io"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/coatcheck/session"
)

var device = session.NewKey[string]("device") // the name of the device, for the list

// passwords stands for the table of users. A real table has hashes (golang.org/x/crypto/bcrypt), and a
// real login limits the attempts (docs/recipes/login.md).
var passwords = map[string]string{"alice": "wonderland", "bob": "builder"}

// app serves browsers and apps with a Manager each, over one Store.
func app() http.Handler {
	secret := make([]byte, 32) // for sessions in memory; otherwise it is a part of the configuration
	rand.Read(secret)
	both := session.Options{Store: session.NewMemoryStore(nil), Secrets: [][]byte{secret}}
	forApps := both
	forApps.Bearer = true
	forApps.Lifetime, forApps.IdleTimeout = 90*24*time.Hour, 30*24*time.Hour
	forApps.RenewAfter = 24 * time.Hour // a token that was stolen is useful for about a day
	browsers, apps := routes(session.Must(session.New(&both))), routes(session.Must(session.New(&forApps)))

	return http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Not "has an Authorization header": behind HTTP Basic authentication browsers send one too.
		if scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
			apps.ServeHTTP(w, r)
		} else {
			browsers.ServeHTTP(w, r)
		}
	}))
}

// routes returns the routes, which are the same for both.
func routes(sessions *session.Manager) http.Handler {
	member := func(next http.HandlerFunc) http.Handler {
		return sessions.RequireUser(next, http.HandlerFunc(unauthorized))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", login)
	mux.Handle("GET /{$}", member(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		all, err := sessions.List(r.Context(), s.User()) // of both Managers
		if err != nil {
			unavailable(w, err)
			return
		}
		v := view{User: s.User()}
		for _, d := range all {
			name, _ := device.Of(d)
			v.Devices = append(v.Devices, row{d.ID, name, d.ID == s.ID()})
		}
		answer(w, r, http.StatusOK, v)
	}))
	mux.Handle("POST /devices/{id}/logout", member(func(w http.ResponseWriter, r *http.Request) {
		s, id := session.From(r.Context()), r.PathValue("id")
		if id == s.ID() {
			s.Logout() // also deletes the cookie or token
		} else if err := sessions.Revoke(r.Context(), s.User(), id); err != nil { // only sessions of this user
			unavailable(w, err)
			return
		}
		done(w, r)
	}))
	return sessions.Handler(mux)
}

func login(w http.ResponseWriter, r *http.Request) {
	user := r.PostFormValue("user")
	password, isKnown := passwords[user]
	if !isKnown || subtle.ConstantTimeCompare([]byte(password), []byte(r.PostFormValue("password"))) == 0 {
		http.Error(w, "The name or the password is wrong.", http.StatusForbidden)
		return
	}
	s := session.From(r.Context())
	s.Login(user)
	name := cmp.Or(r.PostFormValue("device"), r.UserAgent(), "unknown")
	device.Set(s, strings.ToValidUTF8(name[:min(len(name), 200)], "?")) // values are JSON
	done(w, r)
}

// unauthorized answers clients that are not logged in: the schemes of both are named.
func unauthorized(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="apps", Cookie realm="apps"`)
	answer(w, r, http.StatusUnauthorized, view{})
}

// unavailable answers requests that failed because of the store.
func unavailable(w http.ResponseWriter, err error) {
	log.Print(err)
	http.Error(w, "Please try again in a moment.", http.StatusServiceUnavailable)
}

// isBrowser reports whether the client wants pages. It decides nothing but the form of the answer.
func isBrowser(r *http.Request) bool { return strings.Contains(r.Header.Get("Accept"), "text/html") }

func done(w http.ResponseWriter, r *http.Request) {
	if isBrowser(r) {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// A view is what clients are shown: the login form, or the devices of a user.
type view struct {
	User    string `json:"user"`
	Devices []row  `json:"devices"`
}

type row struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	IsThis bool   `json:"isThis"`
}

//go:embed page.html
var source string

var page = template.Must(template.New("page").Parse(source))

// answer sends a browser the page, and an app JSON.
func answer(w http.ResponseWriter, r *http.Request, status int, v view) {
	write, contentType := page.Execute, "text/html; charset=utf-8"
	if !isBrowser(r) {
		write, contentType = func(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }, "application/json"
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Add("Vary", "Accept")
	w.WriteHeader(status)
	if err := write(w, v); err != nil {
		log.Print(err)
	}
}

func main() {
	log.Print("http://localhost:8080 (alice, wonderland)")
	log.Fatal(http.ListenAndServe("localhost:8080", app()))
}
