// Website is a site whose pages are rendered on the server: a login form, messages that are shown
// once, a page for users only, and forms that no other site can send.
//
//	go run ./examples/website
//
// Open http://localhost:8080, and log in as alice with the password "wonderland". The cookie is
// Secure: Safari keeps it on localhost only if Options.Cookie.Insecure is set.
package main

import (
	"crypto/subtle"
	_ "embed"
	"html/template"
	"log"
	"net/http"
	"strings"

	"github.com/coatcheck/session"
)

// list is a value of the session. A key knows the type of its value; the package stores it as JSON.
var list = session.NewKey[[]string]("list")

// maxItems bounds the list: a session is for small values (Options.MaxDataSize).
const maxItems = 100

// passwords stands for the table of users. A real table has hashes (golang.org/x/crypto/bcrypt), and a
// real login limits the attempts (docs/recipes/login.md).
var passwords = map[string]string{"alice": "wonderland", "bob": "builder"}

// app returns the whole site.
func app() http.Handler {
	sessions := session.Must(session.New(nil)) // in memory, for one process: the README lists other stores
	member := func(page http.HandlerFunc) http.Handler {
		return sessions.RequireUser(page, http.RedirectHandler("/login", http.StatusSeeOther))
	}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", member(render))
	mux.Handle("POST /list", member(addToList))
	mux.HandleFunc("GET /login", render)
	mux.HandleFunc("POST /login", login)
	mux.HandleFunc("POST /logout", logout)
	// Every change is a POST, and a POST that another site made is refused: no CSRF token is needed.
	return http.NewCrossOriginProtection().Handler(sessions.Handler(mux))
}

func login(w http.ResponseWriter, r *http.Request) {
	s, user := session.From(r.Context()), r.PostFormValue("user")
	password, isKnown := passwords[user]
	if !isKnown || subtle.ConstantTimeCompare([]byte(password), []byte(r.PostFormValue("password"))) == 0 {
		s.AddFlash("bad", "The name or the password is wrong.")
		http.Redirect(w, r, "/login", http.StatusSeeOther)
		return
	}
	s.Login(user) // the browser gets a new token; what it had as a visitor, such as a cart, stays
	s.AddFlash("good", "Welcome, "+user+".")
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func logout(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	s.Logout()
	s.AddFlash("good", "You are logged out.") // in a new session, without a user
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

func addToList(w http.ResponseWriter, r *http.Request) {
	s, item := session.From(r.Context()), strings.TrimSpace(r.PostFormValue("item"))
	item = strings.ToValidUTF8(item, "?") // values are JSON
	if item == "" || len(item) > 200 {
		s.AddFlash("bad", "An item has 1 to 200 bytes.")
	} else {
		// With Update no item is lost if two tabs add one at the same time, as Get and Set would.
		list.Update(s, func(items []string) []string {
			items = append(items, item)
			return items[max(0, len(items)-maxItems):]
		})
		s.AddFlash("good", "Added "+item+".")
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// render writes the list, or the login form. It reads the session first: Flashes removes what it returns, which is
// stored before the first byte of the response.
func render(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	data := struct {
		User    string
		Flashes []session.Flash
		Items   []string
	}{s.User(), s.Flashes(), list.Get(s)}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := page.Execute(w, data); err != nil {
		log.Print(err)
	}
}

//go:embed page.html
var source string

var page = template.Must(template.New("page").Parse(source))

func main() {
	log.Print("http://localhost:8080 (alice, wonderland)")
	log.Fatal(http.ListenAndServe("localhost:8080", app()))
}
