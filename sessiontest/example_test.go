package sessiontest_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sessiontest"
)

// The application that is tested.
var (
	store    = sessiontest.NewStore(nil)
	sessions = session.Must(session.New(&session.Options{Store: store, Secrets: [][]byte{[]byte("0123456789abcdef0123456789abcdef")}}))
	cart     = session.NewKey[[]string]("cart")
)

func app() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		session.From(r.Context()).Login(r.PostFormValue("user"))
	})
	mux.HandleFunc("POST /cart", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if s.User() == "" {
			http.Error(w, "Please log in.", http.StatusUnauthorized)
			return
		}
		cart.Update(s, func(all []string) []string { return append(all, r.FormValue("item")) })
		fmt.Fprint(w, "Thank you, ", s.User())
	})
	return sessions.Handler(mux)
}

var t testing.TB = new(quiet) // in a test: its *testing.T

// One line logs the request of a test in, and one line reads the values afterwards.
func ExampleDo() {
	w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/cart?item=tea", nil)

	sessiontest.Do(t, sessions, r, func(s *session.Session) { s.Login("alice") }) // r is logged in
	app().ServeHTTP(w, r)
	sessiontest.Do(t, sessions, r, func(s *session.Session) { fmt.Println(w.Body, cart.Get(s)) })
	// Output: Thank you, alice [tea]
}

// A handler of a framework is tested with a context that the test makes.
func ExampleRequest() {
	type context struct{ Request *http.Request } // stands for that of a framework, such as gin.Context
	addToCart := func(c *context) {
		cart.Update(session.From(c.Request.Context()), func(all []string) []string { return append(all, c.Request.FormValue("item")) })
	}

	r := sessiontest.Request(t, sessions, httptest.NewRequest("POST", "/cart?item=tea", nil)) // without a server, for a hand-made context of gin or echo
	s := session.From(r.Context())
	s.Login("alice")
	addToCart(&context{r})
	fmt.Println(s.User(), cart.Get(s))
	// Output: alice [tea]
}

// Three lines send requests of a browser.
func ExampleBrowser() {
	b := sessiontest.NewBrowser(t, app()) // a browser with a cookie jar
	b.PostForm("/login", url.Values{"user": {"alice"}})
	resp := b.PostForm("/cart", url.Values{"item": {"tea"}})

	fmt.Println(resp.Status)
	b.Session(sessions, func(s *session.Session) { fmt.Println(s.User(), cart.Get(s)) })
	// Output:
	// 200 OK
	// alice [tea]
}

// One line simulates an outage.
func ExampleStore_Fail() {
	b := sessiontest.NewBrowser(t, app())
	b.PostForm("/login", url.Values{"user": {"alice"}})
	store.Fail(errors.New("the network is down"))                        // an outage
	fmt.Println(b.PostForm("/cart", url.Values{"item": {"tea"}}).Status) // not "Please log in."
	store.Fail(nil)
	fmt.Println(b.PostForm("/cart", url.Values{"item": {"tea"}}).Status)
	// Output:
	// 503 Service Unavailable
	// 200 OK
}
