package session_test

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coatcheck/session"
)

// client stores its token itself: a native app in the keychain of the system, a command-line
// tool in a file that only its user can read. It sends the token that it has with every
// request, and stores the token of a response. An empty token means that the session has ended.
// A client may be used by any number of goroutines.
type client struct {
	base string

	mu    sync.Mutex
	token string
}

func (c *client) post(path string, form url.Values) (answer string, err error) {
	r, err := http.NewRequest("POST", c.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	c.mu.Lock()
	r.Header.Set("Authorization", "Bearer "+cmp.Or(c.token, "none")) // a token has at least one character (RFC 6750, 2.1)
	c.mu.Unlock()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if token, ok := resp.Header["Session-Token"]; ok {
		c.mu.Lock()
		c.token = token[0]
		c.mu.Unlock()
	}
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// browsersAndApps serves apps with one Manager and browsers with another. An app sends the
// scheme Bearer, even before it has a token. A browser behind HTTP Basic authentication also
// sends an Authorization header, with the scheme Basic.
func browsersAndApps(browsers, apps *session.Manager, next http.Handler) http.Handler {
	forBrowsers, forApps := browsers.Handler(next), apps.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if strings.EqualFold(scheme, "Bearer") {
			forApps.ServeHTTP(w, r)
		} else {
			forBrowsers.ServeHTTP(w, r)
		}
	})
}

// Browsers and apps use the same routes, with two Managers over one Store. A handler does not
// see which of them serves it.
func Example_browsersAndApps() {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context()) // check the password first
		s.Login(r.PostFormValue("user"))
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Logout() })
	mux.HandleFunc("POST /renew", func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Renew() })
	mux.HandleFunc("POST /me", func(w http.ResponseWriter, r *http.Request) {
		user := session.From(r.Context()).User()
		if user == "" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="app"`)
			http.Error(w, "Please log in.", http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, "You are %s.", user)
	})

	store, secrets := session.NewMemoryStore(nil), [][]byte{[]byte("at least 32 random bytes, kept secret")}
	browsers := session.Must(session.New(&session.Options{Store: store, Secrets: secrets}))
	apps := session.Must(session.New(&session.Options{Store: store, Secrets: secrets, Bearer: true, RenewAfter: time.Hour}))

	handler := browsersAndApps(browsers, apps, mux)
	server := httptest.NewServer(http.NewCrossOriginProtection().Handler(handler)) // requests without Origin pass
	defer server.Close()

	c := &client{base: server.URL}
	say := func(path string, form url.Values) {
		before := c.token
		answer, err := c.post(path, form)
		if err != nil {
			fmt.Println(err)
		}
		switch {
		case c.token == before:
			fmt.Println(path, answer)
		case c.token == "":
			fmt.Println(path, answer, "(and no token any more)")
		default:
			fmt.Println(path, answer, "(and a new token)")
		}
	}
	say("/me", nil)
	say("/login", url.Values{"user": {"alice"}})
	say("/me", nil)
	say("/renew", nil)
	say("/me", nil)
	say("/logout", nil)
	say("/me", nil)
	// Output:
	// /me Please log in.
	//
	// /login  (and a new token)
	// /me You are alice.
	// /renew  (and a new token)
	// /me You are alice.
	// /logout  (and no token any more)
	// /me Please log in.
}
