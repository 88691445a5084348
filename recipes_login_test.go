package session_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sessiontest"
)

// overlap returns a middleware for n requests. Each loads its session and waits
// there until all n have done so.
func overlap(n int, next http.Handler) http.Handler {
	var loaded sync.WaitGroup
	loaded.Add(n)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		session.From(r.Context()).Err()
		loaded.Done()
		loaded.Wait()
		next.ServeHTTP(w, r)
	})
}

// atOnce runs f n times concurrently.
func atOnce(n int, f func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}

// keyOfRequest returns a key for a value that one of several overlapping requests
// writes.
func keyOfRequest(i int) session.Key[int] { return session.NewKey[int](fmt.Sprint("of request ", i)) }

// writing answers POST /write/{i}.
func writing(w http.ResponseWriter, r *http.Request) {
	i, _ := strconv.Atoi(r.PathValue("i"))
	keyOfRequest(i).Set(session.From(r.Context()), i)
}

// wrote fails the test unless the browser's session is the user's and has what
// each of n overlapping requests wrote.
func wrote(t *testing.T, b *sessiontest.Browser, m *session.Manager, user string, n int) {
	t.Helper()
	b.Session(m, func(s *session.Session) {
		for i := range n {
			if s.User() != user || keyOfRequest(i).Get(s) != i {
				t.Errorf("in as %q, want %q; request %d wrote %d", s.User(), user, i, keyOfRequest(i).Get(s))
			}
		}
	})
}

func TestRecipePasswordAskedForAgain(t *testing.T) {
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		mux := http.NewServeMux()
		mux.Handle("POST /delete", recently(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})))
		mux.HandleFunc("POST /password", again)
		b := sessiontest.NewBrowser(t, m.Handler(mux))
		expect := func(want string) {
			t.Helper()
			if resp := b.PostForm("/delete", nil); resp.Header.Get("Location") != want {
				t.Errorf("%s, to %q, want %q", resp.Status, resp.Header.Get("Location"), want)
			}
		}
		expect("/password?then=%2Fdelete")
		b.Session(m, func(s *session.Session) { s.Login("alice") })
		expect("")
		time.Sleep(6 * minute)
		expect("/password?then=%2Fdelete")
		b.PostForm("/password", nil)
		expect("")
	})
}

// goesTo returns where a browser goes that is at https://example.test/password and
// gets this Location, as the URL standard has it: tabs and line breaks are dropped,
// and a backslash is a slash.
func goesTo(t *testing.T, location string) *url.URL {
	t.Helper()
	at, _ := url.Parse("https://example.test/password")
	to, err := at.Parse(strings.NewReplacer("\t", "", "\n", "", "\r", "", `\`, "/").Replace(location))
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func TestRecipePasswordAskedForAgainLeadsNowhereElse(t *testing.T) {
	b := sessiontest.NewBrowser(t, sessions.Handler(http.HandlerFunc(again)))
	b.Session(sessions, func(s *session.Session) { s.Login("ann") })
	for then, want := range map[string]string{
		"/delete?item=7&sure=yes": "/delete?item=7&sure=yes",
		"/a//b":                   "/a/b",
		"/":                       "/",
		"":                        "/",
		"delete":                  "/",
		"//evil.example/":         "/",
		"///evil.example/":        "/",
		`/\evil.example/`:         "/",
		`\/evil.example/`:         "/",
		`\\evil.example/`:         "/",
		`/./\evil.example/`:       "/", // which http.Redirect would clean to one of those above
		`/a/../\evil.example/`:    "/",
		"/\t/evil.example/":       "/",
		"/\n\\evil.example/":      "/",
		"/./\t\\evil.example/":    "/",
		"https://evil.example/":   "/",
		"https:evil.example":      "/",
		"javascript:alert(1)":     "/",
		"/.//evil.example/":       "/evil.example/",
	} {
		resp := b.PostForm("/password", url.Values{"then": {then}})
		if to := goesTo(t, resp.Header.Get("Location")); to.Host != "example.test" || to.RequestURI() != want {
			t.Errorf("then=%q leads to %s, want %s", then, to, want)
		}
	}
	// The address of the page that asked comes from the request, too.
	ask := httpGet(t, sessions.Handler(recently(http.NotFoundHandler())), "https://example.test//evil.example/x?y")
	form := goesTo(t, ask.Header.Get("Location"))
	if to := goesTo(t, b.PostForm(form.RequestURI(), nil).Header.Get("Location")); to.Host != "example.test" {
		t.Errorf("leads to %s", to)
	}
}

// httpGet returns the response to a request that comes without cookies.
func httpGet(t *testing.T, h http.Handler, target string) *http.Response {
	t.Helper()
	return sessiontest.NewBrowser(t, h).Get(target)
}

func TestRecipePasswordAskedForAgainLosesNothing(t *testing.T) {
	const n = 10
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		mux := http.NewServeMux()
		mux.HandleFunc("POST /password", again)
		mux.HandleFunc("POST /write/{i}", writing)
		b := sessiontest.NewBrowser(t, m.Handler(overlap(n+2, mux)))
		b.Session(m, func(s *session.Session) { s.Login("ann") })
		time.Sleep(6 * minute)
		atOnce(n+2, func(i int) {
			target := fmt.Sprint("/write/", i)
			if i >= n { // the button was clicked twice
				target = "/password"
			}
			if resp := b.PostForm(target, url.Values{"then": {"/delete"}}); resp.StatusCode != 200 && resp.Header.Get("Location") != "/delete" {
				t.Errorf("%s: %s, to %q", target, resp.Status, resp.Header.Get("Location"))
			}
		})
		wrote(t, b, m, "ann", n)
		b.Session(m, func(s *session.Session) {
			if ago := time.Since(s.AuthTime()); ago > minute {
				t.Errorf("the password was typed %v ago", ago)
			}
		})
	})
}

// changeOfPassword runs a test of a change of password on a fake clock, over
// sessions of its own. The change is POST /password.
func changeOfPassword(t *testing.T, n int, change http.HandlerFunc, f func(h http.Handler)) {
	synctest.Test(t, func(t *testing.T) {
		defer func(m *session.Manager) { sessions = m }(sessions)
		sessions = newManager(t, session.Options{})
		mux := http.NewServeMux()
		mux.HandleFunc("POST /password", change)
		mux.HandleFunc("POST /write/{i}", writing)
		f(sessions.Handler(overlap(n, mux)))
	})
}

// A user changes the password, with a double click, while other requests are in
// flight and other devices are logged in.
func TestRecipeChangeOfPassword(t *testing.T) {
	const n = 10
	changeOfPassword(t, n+2, passwordChanged, func(h http.Handler) {
		here, there := sessiontest.NewBrowser(t, h), sessiontest.NewBrowser(t, h)
		for _, b := range []*sessiontest.Browser{here, there} {
			b.Session(sessions, func(s *session.Session) { s.Login("ann") })
		}
		time.Sleep(minute)
		atOnce(n+2, func(i int) {
			target := fmt.Sprint("/write/", i)
			if i >= n {
				target = "/password"
			}
			if resp := here.PostForm(target, nil); resp.StatusCode != 200 {
				t.Errorf("%s: %s", target, resp.Status)
			}
		})
		time.Sleep(20 * second)
		wrote(t, here, sessions, "ann", n)
		here.Session(sessions, func(s *session.Session) {
			if since := time.Since(s.AuthTime()); since > 21*second {
				t.Errorf("authenticated %v ago", since)
			}
		})
		there.Session(sessions, func(s *session.Session) {
			if s.User() != "" {
				t.Errorf("the other device is in as %q", s.User())
			}
		})
	})
}

// A login whose password was checked before a change begins after it; the form of
// the change is sent twice; and requests with the token of before are in flight.
func TestRecipeChangeOfPasswordDuringALogin(t *testing.T) {
	var version atomic.Int64
	version.Store(1)
	current := func(string) int { return int(version.Load()) }
	var later chan struct{} // closed when the later change has been answered
	change := func(w http.ResponseWriter, r *http.Request) {
		s, v := session.From(r.Context()), int(version.Add(1))
		if v == 2 {
			<-later
		}
		withPassword(s, s.User(), v)
		if err := sessions.RevokeOthers(r.Context(), s); err != nil {
			t.Error(err)
		}
	}
	changeOfPassword(t, 2, change, func(h http.Handler) {
		looking := sessions.Handler(currentPassword(current, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, session.From(r.Context()).User())
		})))
		expect := func(what string, b *browser, want string) {
			t.Helper()
			b.h = looking
			if got := body(b.get("/")); got != want {
				t.Errorf("%s: answered %q, want %q", what, got, want)
			}
		}
		const sentToLogin = "<a href=\"/login\">See Other</a>.\n\n"
		signIn := func(version int) *browser {
			b := newBrowser(t, sessions.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				withPassword(session.From(r.Context()), "ann", version)
			})))
			b.get("/")
			return b
		}
		here, checked := signIn(current("ann")), current("ann")
		expect("before the change", here, "ann")
		before := here.replay(here.cookie())
		here.h = h
		later = make(chan struct{})
		var answered sync.Once
		atOnce(2, func(int) {
			r := here.request("/password")
			r.Method = "POST"
			if resp := here.do(r); resp.StatusCode != 200 {
				t.Error(resp.Status)
			}
			answered.Do(func() { close(later) })
		})
		expect("a request with the token of before", before, sentToLogin)
		expect("the browser of the change", here, "ann")
		expect("a login with the password of before", signIn(checked), sentToLogin)
		expect("a login with the new password", signIn(current("ann")), "ann")
		time.Sleep(20 * second)
		expect("the browser of the change, later", here, "ann")
	})
}

func TestRecipeTwoSteps(t *testing.T) {
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		right := func(user, code string) bool { return user == "alice" && code == "123456" }
		for name, c := range map[string]struct {
			codes []string
			wait  time.Duration
			want  string
		}{
			"right":           {[]string{"123456"}, 0, "alice"},
			"wrong":           {[]string{"0"}, 0, ""},
			"right at last":   {[]string{"0", "0", "0", "0", "123456"}, 0, "alice"},
			"right too late":  {[]string{"123456"}, 6 * minute, ""},
			"guessed":         {[]string{"0", "0", "0", "0", "0", "123456"}, 0, ""},
			"no code so far":  {nil, 0, ""},
			"no password yet": {[]string{"123456"}, -1, ""},
		} {
			b := sessiontest.NewBrowser(t, m.Handler(http.NotFoundHandler()))
			if c.wait >= 0 {
				b.Session(m, func(s *session.Session) { passwordIsRight(s, "alice") })
			}
			time.Sleep(c.wait)
			for _, code := range c.codes {
				b.Session(m, func(s *session.Session) {
					if _, err := secondFactor(t.Context(), s, right, code); err != nil {
						t.Error(err)
					}
				})
			}
			b.Session(m, func(s *session.Session) {
				if _, still := firstFactor.Lookup(s); s.User() != c.want || still && c.want != "" {
					t.Errorf("%s: in as %q", name, s.User())
				}
			})
		}
	})
}

// Thirty requests guess at once: five codes are compared. A token that was planted
// before the password was given is not half logged in.
func TestRecipeTwoStepsAtOnce(t *testing.T) {
	const n = 30
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		var compared atomic.Int64
		guess := m.Handler(overlap(n, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ok, err := secondFactor(r.Context(), session.From(r.Context()), func(user, code string) bool {
				compared.Add(1)
				return false
			}, "0")
			if ok || err != nil {
				t.Error(ok, err)
			}
		})))
		b := newBrowser(t, m.Handler(routes{
			"/basket":   func(w http.ResponseWriter, r *http.Request, s *session.Session) { name.Set(s, "basket") },
			"/password": func(w http.ResponseWriter, r *http.Request, s *session.Session) { passwordIsRight(s, "ann") },
			"/halfway": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				fmt.Fprint(w, firstFactor.Get(s).User)
			},
		}))
		b.get("/basket")
		planted := b.replay(b.cookie())
		b.get("/password")
		if got := body(b.get("/halfway")); got != "ann" {
			t.Errorf("the browser is halfway in as %q", got)
		}
		if got := body(planted.get("/halfway")); got != "" {
			t.Errorf("the planted token is halfway in as %q", got)
		}
		b.h = guess
		atOnce(n, func(int) { b.get("/code") })
		if compared.Load() != 5 {
			t.Errorf("%d codes were compared, want 5", compared.Load())
		}
	})
}

func TestRecipeVoucherIsSpentOnce(t *testing.T) {
	const n = 10
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		b := newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.Login("ann")
			voucher.Set(s, "ten euros")
		}}))
		b.get("/")
		var redeemed, spent atomic.Int64
		b.h = m.Handler(overlap(n, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ok, err := spend(r.Context(), session.From(r.Context()), func(user, code string) {
				if redeemed.Add(1); user != "ann" || code != "ten euros" {
					t.Errorf("%q redeems %q", user, code)
				}
			})
			if err != nil {
				t.Error(err)
			}
			if ok {
				spent.Add(1)
			}
		})))
		atOnce(n, func(int) { b.get("/") })
		if redeemed.Load() != 1 || spent.Load() != 1 {
			t.Errorf("redeemed %d times, for %d requests", redeemed.Load(), spent.Load())
		}
	})
}

// extend moves the end of a remembered session, about once a week and until a year after
// the login. It is for pages, not for what they load.
func extend(page http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		young := time.Since(s.AuthTime()) < 365*24*time.Hour
		if s.Remembered() && young && time.Until(s.Expires()) < 23*24*time.Hour {
			s.Remember(30 * 24 * time.Hour)
		}
		page.ServeHTTP(w, r)
	})
}

// Several tabs of a browser come back at the same time, every 20 days, and once more a
// while later.
func TestRecipeRememberWhoComesBack(t *testing.T) {
	const n = 10
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, session.Options{})
		tabs := http.NotFoundHandler()
		b := sessiontest.NewBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			tabs.ServeHTTP(w, r)
		})))
		b.Session(m, func(s *session.Session) { s.Login("ann"); s.Remember(30 * day) })
		begun := time.Now()
		for last := false; !last; {
			time.Sleep(20 * day)
			last = time.Since(begun) > 365*day
			var cookies atomic.Int32
			tabs = overlap(n, extend(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, session.From(r.Context()).User())
			})))
			atOnce(n, func(int) {
				resp := b.Get("/")
				cookies.Add(int32(len(resp.Cookies())))
				if got := body(resp); resp.StatusCode != 200 || got != "ann" {
					t.Errorf("%v after the login: %s, in as %q", time.Since(begun), resp.Status, got)
				}
			})
			if got := cookies.Load(); (got != 1) != last {
				t.Errorf("%v after the login %d cookies are set", time.Since(begun), got)
			}
		}
		time.Sleep(20 * day)
		b.Session(m, func(s *session.Session) {
			if s.User() != "" {
				t.Errorf("%v after the login: in as %q", time.Since(begun), s.User())
			}
		})
	})
}

var yearsOptions = session.Options{
	RenewAfter: 30 * 24 * time.Hour,
}

// A browser keeps a cookie for 400 days at most. With RenewAfter it gets another while
// its user comes back, from one of several tabs.
func TestRecipeRememberForYears(t *testing.T) {
	const n = 10
	for renewAfter, want := range map[time.Duration]string{0: "", yearsOptions.RenewAfter: "ann"} {
		synctest.Test(t, func(t *testing.T) {
			m := newManager(t, session.Options{RenewAfter: renewAfter})
			tabs := http.NotFoundHandler()
			b := sessiontest.NewBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				tabs.ServeHTTP(w, r)
			})))
			b.Session(m, func(s *session.Session) {
				s.Login("ann")
				s.Remember(5 * 365 * day)
			})
			for range 5 {
				time.Sleep(300 * day)
				tabs = overlap(n, http.NotFoundHandler())
				atOnce(n, func(int) { b.Get("/") })
			}
			b.Session(m, func(s *session.Session) {
				if s.User() != want {
					t.Errorf("RenewAfter %v: after 1500 days in as %q, want %q", renewAfter, s.User(), want)
				}
			})
		})
	}
}

// loginPage tells users once that their session has ended.
func loginPage(w http.ResponseWriter, r *http.Request) {
	if s := session.From(r.Context()); s.Ended() {
		s.Logout() // deletes the cookie of the ended session
		fmt.Fprint(w, "<p>Your session has ended. Please log in again.</p>")
	}
	fmt.Fprint(w, "<form method=post action=/login>…</form>")
}

// The session of a browser has ended, and several of its tabs come to the login page at
// the same time.
func TestRecipeYourSessionHasEnded(t *testing.T) {
	const n = 5
	for what, end := range map[string]func(m *session.Manager) error{
		"revoked": func(m *session.Manager) error { return m.RevokeAll(context.Background(), "alice") },
		"idle":    func(*session.Manager) error { time.Sleep(20 * minute); return nil },
	} {
		inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
			mux := http.NewServeMux()
			mux.Handle("/tab", overlap(n, http.HandlerFunc(loginPage)))
			mux.HandleFunc("/page", loginPage)
			mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Login("alice") })
			b := newBrowser(t, m.Handler(mux))
			b.get("/login")
			if err := end(m); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * second)
			atOnce(n, func(int) {
				if got := body(b.get("/tab")); !strings.Contains(got, "has ended") {
					t.Errorf("%s: a tab says %q", what, got)
				}
			})
			if got := body(b.get("/page")); b.cookie() != "" || strings.Contains(got, "has ended") {
				t.Errorf("%s: the next page says %q, the cookie is %q", what, got, b.cookie())
			}
		})
	}
}

// A role changes, and then the account is disabled, while requests of two devices are
// in flight.
func TestRecipeRoleChangedWhileRequestsAreInFlight(t *testing.T) {
	const n = 5
	for what, change := range map[string]func() error{
		"role":     func() error { return setRole(t.Context(), "dora", "admin") },
		"disabled": func() error { return disable(t.Context(), "dora") },
	} {
		var loaded sync.WaitGroup
		loaded.Add(2 * n)
		changed := make(chan struct{})
		mux := http.NewServeMux()
		mux.HandleFunc("/write/{i}", func(w http.ResponseWriter, r *http.Request) {
			session.From(r.Context()).Err()
			loaded.Done()
			<-changed
			writing(w, r)
		})
		bs := make([]*sessiontest.Browser, 2)
		for i := range bs {
			bs[i] = sessiontest.NewBrowser(t, sessions.Handler(mux))
			bs[i].Session(sessions, func(s *session.Session) { s.Login("dora") })
		}
		go func() {
			defer close(changed)
			loaded.Wait()
			if err := change(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}()
		atOnce(2*n, func(i int) { bs[i/n].Get(fmt.Sprint("/write/", i%n)) })
		want := " "
		if what == "role" {
			want = "dora admin"
		}
		for _, b := range bs {
			if what == "role" {
				wrote(t, b, sessions, "dora", n)
			}
			b.Session(sessions, func(s *session.Session) {
				if got := s.User() + " " + role.Get(s); got != want {
					t.Errorf("%s: %q, want %q", what, got, want)
				}
			})
		}
		if err := disable(t.Context(), "dora"); err != nil {
			t.Error(err)
		}
	}
}
