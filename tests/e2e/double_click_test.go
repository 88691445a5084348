package e2e

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

// TestDoubleClickOnConfirm covers a double click on "confirm password": the browser sends two
// POSTs and discards the response to the first, with its cookie. The user stays logged in, with
// the changes of both requests, also after Options.RenewGrace. Either request may be committed
// first.
func TestDoubleClickOnConfirm(t *testing.T) {
	for name, first := range map[string]int{"the first is committed first": 0, "the second is committed first": 1} {
		t.Run(name, func(t *testing.T) {
			inEach(t, []string{"firefox"}, func(t *testing.T, _ string, b browser) {
				for try := 0; !doubleClick(t, b, first); try++ {
					if try == 5 {
						t.Fatal("the browser never sends the second POST while the first is in flight")
					}
				}
			})
		})
	}
}

// doubleClick logs in and clicks twice. It returns false, and has proved nothing, if the
// browser did not send two POSTs. first is the POST that is committed first.
func doubleClick(t *testing.T, b browser, first int) bool {
	// The grace must end before the test does: see below.
	m, err := session.New(&session.Options{RenewGrace: time.Second, Cookie: session.CookieOptions{Insecure: true}})
	if err != nil {
		t.Fatal(err)
	}
	const patience = 30 * time.Second // for a browser that sends only one POST
	var (
		mu        sync.Mutex
		posts     []string                 // the Cookie header of each POST
		loaded    = make(chan struct{}, 2) // receives from each POST that has loaded its session
		both      = make(chan struct{})    // closed when both POSTs have loaded their session
		committed = make(chan struct{})    // closed when POST number first is committed
		over      = make(chan struct{})    // closed when the test ends, so that handlers stop waiting
	)
	base := serve(t, "localhost", false, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		switch r.URL.Path {
		case "/login":
			s.Login("alice")
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		case "/who":
			fmt.Fprintf(w, "user:%s count:%d", s.User(), count.Get(s))
			return
		case "/":
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(w, `<p>user:%s count:%d</p><form method=post action=/confirm><button>Confirm</button></form>`, s.User(), count.Get(s))
			return
		case "/confirm":
		default: // requests that the browser makes by itself, such as for /favicon.ico
			http.NotFound(w, r)
			return
		}
		mu.Lock()
		n := len(posts)
		posts = append(posts, r.Header.Get("Cookie"))
		mu.Unlock()
		if n > 1 {
			return
		}
		user := s.User() // loads the session
		loaded <- struct{}{}
		if n == 1 {
			close(both) // the second click follows only after the first POST has loaded its session
		}
		select {
		case <-both:
		case <-over:
			return
		}
		if n != first {
			<-committed
		}
		count.Update(s, func(n int) int { return n + 1 })
		s.Login(user)
		if err := s.Save(r.Context()); err != nil {
			t.Error(err)
		}
		if n == first {
			close(committed)
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})))
	end := sync.OnceFunc(func() { close(over) })
	t.Cleanup(end) // runs before the server waits for its handlers
	b.open(base + "/login")
	b.expect("user:alice count:0")
	for range 2 {
		b.js(`setTimeout(() => document.querySelector("button").click())`)
		select {
		case <-loaded:
		case <-time.After(patience):
			end()
			return false
		}
	}
	b.expect("user:alice count:2")

	// The previous token shows when the grace has ended on this server.
	eventually(t, callLimit, func() bool {
		req, err := http.NewRequest(http.MethodGet, base+"/who", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Cookie", posts[0])
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		user := ""
		fmt.Fscanf(resp.Body, "user:%s", &user)
		return user != "alice"
	}, func() string { return "the token of before stays" })
	b.open(base)
	b.expect("user:alice count:2")
	return true
}
