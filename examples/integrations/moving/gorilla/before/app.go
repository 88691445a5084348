// Package before is a small application as it was.
package before

import (
	"fmt"
	"net/http"

	"github.com/gorilla/sessions"
)

var store = sessions.NewCookieStore([]byte("something-very-secret"))

// App returns the application.
func App() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", login)
	mux.HandleFunc("GET /me", me)
	mux.HandleFunc("POST /logout", logout)
	return mux
}

func login(w http.ResponseWriter, r *http.Request) {
	session, _ := store.Get(r, "session-name")
	session.Values["user"] = r.PostFormValue("user")
	session.AddFlash("Hello!")
	if err := session.Save(r, w); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func me(w http.ResponseWriter, r *http.Request) {
	session, _ := store.Get(r, "session-name")
	user, _ := session.Values["user"].(string)
	if user == "" {
		http.Error(w, "Please log in.", http.StatusUnauthorized)
		return
	}
	visits, _ := session.Values["visits"].(int)
	visits++
	session.Values["visits"] = visits
	flashes := session.Flashes()
	if err := session.Save(r, w); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintf(w, "%s, visit %d. ", user, visits)
	for _, f := range flashes {
		fmt.Fprint(w, f)
	}
}

func logout(w http.ResponseWriter, r *http.Request) {
	session, _ := store.Get(r, "session-name")
	session.Options.MaxAge = -1
	if err := session.Save(r, w); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
