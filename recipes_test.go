package session_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sessiontest"
)

// The functions in this file are recipes that docs/recipes prints, with a test for each.
// TestDocuments compares both.

// recently calls next if the user has entered the password within the last five minutes.
func recently(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if time.Since(s.AuthTime()) > 5*time.Minute {
			http.Redirect(w, r, "/password?then="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// again handles the form of /password. A Login of the user who is logged in renews the token,
// and in-flight requests keep working.
func again(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context()) // the password is right
	s.Login(s.User())
	http.Redirect(w, r, localTarget(r.FormValue("then")), http.StatusSeeOther)
}

// localTarget returns target if every browser reads it as a path of this site, and "/"
// otherwise. Browsers read "//evil.example" and "/\evil.example" as another host, and drop tabs
// and line breaks first.
func localTarget(target string) string {
	if !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "//") || strings.ContainsAny(target, "\\\t\r\n") {
		return "/"
	}
	return target
}

// passwordChanged renews the user's token and ends the user's other sessions.
func passwordChanged(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context()) // the new password is stored
	s.Login(s.User())
	if err := sessions.RevokeOthers(r.Context(), s); err != nil {
		http.Error(w, "Your other devices may still be logged in. Try again.", http.StatusServiceUnavailable)
	}
}

var passwordVersion = session.NewKey[int]("password-version")

// withPassword logs in a user whose password was verified. version must have been read together
// with the hash of the password.
func withPassword(s *session.Session, user string, version int) {
	s.Login(user)
	passwordVersion.Update(s, func(v int) int { return max(v, version) })
}

// currentPassword redirects users to the login page if the password with which they logged in
// was changed since.
func currentPassword(version func(user string) int, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if s.User() != "" && passwordVersion.Get(s) != version(s.User()) {
			http.Redirect(w, r, "/login", http.StatusSeeOther)
			return
		}
		next.ServeHTTP(w, r)
	})
}

var sessions = session.Must(session.New(nil))

// login logs a user in, and remembers the user if the form says so.
func login(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context()) // the password is right
	s.Login(r.PostFormValue("user"))
	if r.PostFormValue("remember") != "" {
		s.Remember(30 * 24 * time.Hour)
	}
}

func TestRecipeRememberMe(t *testing.T) {
	for remember, want := range map[string]time.Duration{"": time.Hour, "yes": 30 * day} {
		b := sessiontest.NewBrowser(t, sessions.Handler(http.HandlerFunc(login)))
		b.PostForm("/login", url.Values{"user": {"ann"}, "remember": {remember}})
		b.Session(sessions, func(s *session.Session) {
			if left := time.Until(s.Expires()); left > want || left < want-minute {
				t.Errorf("remember %q: %v left, want %v", remember, left, want)
			}
		})
	}
}

// problem writes an error for clients of an API (RFC 9457).
func problem(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"status": status, "title": http.StatusText(status)})
}

// api answers 503 while the store fails.
var api = session.Must(session.New(&session.Options{
	Store:   store,
	Secrets: [][]byte{secret},
	ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
		slog.ErrorContext(r.Context(), "session", "err", err)
		status := http.StatusInternalServerError
		if errors.Is(err, session.ErrStore) {
			status = http.StatusServiceUnavailable
		}
		problem(w, status)
	},
}))

// unauthorized answers clients that are not logged in.
func unauthorized(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("WWW-Authenticate", `Cookie realm="api"`)
	problem(w, http.StatusUnauthorized)
}

func me(w http.ResponseWriter, r *http.Request) {
	json.NewEncoder(w).Encode(map[string]string{"user": session.From(r.Context()).User()})
}

var (
	store  = sessiontest.NewStore(nil)
	secret = []byte("0123456789abcdef0123456789abcdef")
)

func TestRecipeJSON(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("GET /me", api.RequireUser(http.HandlerFunc(me), http.HandlerFunc(unauthorized)))
	b := sessiontest.NewBrowser(t, api.Handler(mux))
	expect := func(want string) {
		t.Helper()
		if got := body(b.Get("/me")); got != want+"\n" {
			t.Errorf("%s", got)
		}
	}
	expect(`{"status":401,"title":"Unauthorized"}`)
	b.Session(api, func(s *session.Session) { s.Login("ann") })
	expect(`{"user":"ann"}`)
	store.Fail(errDown)
	expect(`{"status":503,"title":"Service Unavailable"}`)
	store.Fail(nil)
	expect(`{"user":"ann"}`)
}

// Visitors and staff have different cookies, over one Store.
var (
	visitors = session.Must(session.New(&session.Options{
		Store:   store,
		Secrets: [][]byte{secret},
		Cookie:  session.CookieOptions{Name: "__Host-Http-visitor"},
	}))
	staff = session.Must(session.New(&session.Options{
		Store:       store,
		Secrets:     [][]byte{secret},
		Lifetime:    8 * time.Hour,
		IdleTimeout: 15 * time.Minute,
		Cookie:      session.CookieOptions{Name: "__Host-Http-staff", SameSite: http.SameSiteStrictMode},
	}))
)

func both(w http.ResponseWriter, r *http.Request) {
	visitor, employee := visitors.From(r.Context()), staff.From(r.Context())
	fmt.Fprintf(w, "visitor %q, employee %q", visitor.User(), employee.User())
}

// employee returns the user name in the sessions of an employee, so that customer 42 is another
// user.
func employee(id string) (user string) { return "staff:" + id }

func nested() http.Handler {
	return visitors.Handler(staff.Handler(http.HandlerFunc(both)))
}

// embedded is for pages in a frame of another site: the cookie is sent there, and browsers keep
// a separate cookie for each embedding site.
var embedded = session.Options{
	Cookie: session.CookieOptions{SameSite: http.SameSiteNoneMode, Partitioned: true},
}

// shop and forum are two applications on one host, whatever their ports and paths.
var (
	shop  = session.Options{Cookie: session.CookieOptions{Name: "__Host-Http-shop"}}
	forum = session.Options{Cookie: session.CookieOptions{Name: "__Host-Http-forum"}}
)

func TestRecipeOptions(t *testing.T) {
	for want, o := range map[string]session.Options{
		"; Path=/; HttpOnly; Secure; SameSite=None; Partitioned": embedded,
		"; Path=/; HttpOnly; Secure; SameSite=Lax":               shop,
	} {
		m := newManager(t, o)
		resp := newBrowser(t, m.Handler(clockRoutes)).get("/login")
		if line := resp.Header.Get("Set-Cookie"); len(line) < 130 || line[len(line)-len(want):] != want {
			t.Error(line)
		}
	}
	one, two := newManager(t, shop), newManager(t, forum)
	b := newBrowser(t, one.Handler(two.Handler(clockRoutes)))
	if b.get("/login"); body(b.get("/look")) != "alice" {
		t.Error("not logged in")
	}
}

var role = session.NewKey[string]("role")

// setRole changes the role in all sessions of a user. The user's next request sees it.
func setRole(ctx context.Context, user, to string) error {
	all, err := sessions.List(ctx, user)
	for _, info := range all {
		change := func(s *session.Session) { role.Set(s, to) }
		if err := sessions.Edit(ctx, user, info.ID, change); err != nil && !errors.Is(err, session.ErrEnded) {
			return err
		}
	}
	return err
}

// disable ends all sessions of a user whose account was disabled.
func disable(ctx context.Context, user string) error {
	return sessions.RevokeAll(ctx, user)
}

func TestRecipeRoleChanged(t *testing.T) {
	var all []*sessiontest.Browser
	for range 3 {
		b := sessiontest.NewBrowser(t, sessions.Handler(http.NotFoundHandler()))
		b.Session(sessions, func(s *session.Session) { s.Login("carl") })
		all = append(all, b)
	}
	expect := func(user, what string) {
		for _, b := range all {
			b.Session(sessions, func(s *session.Session) {
				if s.User() != user || role.Get(s) != what {
					t.Errorf("%q has the role %q, want %q, %q", s.User(), role.Get(s), user, what)
				}
			})
		}
	}
	if err := setRole(t.Context(), "carl", "admin"); err != nil {
		t.Error(err)
	}
	expect("carl", "admin")
	if err := disable(t.Context(), "carl"); err != nil {
		t.Error(err)
	}
	expect("", "")
}

// halfway is a login with the password and without the second factor: it belongs to no user
// yet, and expires.
type halfway struct {
	User  string
	Until time.Time
	Tries int
}

var firstFactor = session.NewKey[halfway]("first-factor")

// passwordIsRight renews the token, so that a token that an attacker has planted in the browser
// is useless for the second step.
func passwordIsRight(s *session.Session, user string) {
	s.Renew()
	firstFactor.Set(s, halfway{User: user, Until: time.Now().Add(5 * time.Minute)})
}

// secondFactor logs the user in if the code is right, and reports whether it was. If it returns
// an error of UpdateNow, the code was not compared.
func secondFactor(ctx context.Context, s *session.Session, right func(user, code string) bool, code string) (bool, error) {
	if _, begun := firstFactor.Lookup(s); !begun {
		return false, s.Err()
	}
	h, err := firstFactor.UpdateNow(ctx, s, func(h halfway) halfway { h.Tries++; return h })
	if err != nil || h.User == "" || h.Tries > 5 || time.Now().After(h.Until) || !right(h.User, code) {
		return false, err
	}
	firstFactor.Delete(s)
	s.Login(h.User)
	return true, nil
}

// spend redeems the voucher of the session, and reports whether there was one. Of concurrent
// requests one redeems it.
func spend(ctx context.Context, s *session.Session, redeem func(user, code string)) (bool, error) {
	if code, ok, err := voucher.Take(ctx, s); err != nil || !ok {
		return false, err // no voucher, or another request has taken it
	} else {
		redeem(s.User(), code)
	}
	return true, nil
}

var actsAs = session.NewKey[string]("acts-as")

// actingUser returns the user whose data a page shows. The session's user stays the
// administrator, for the log, for the list of devices, and to switch back.
func actingUser(s *session.Session) string {
	return cmp.Or(actsAs.Get(s), s.User())
}

// act lets an administrator act as a user, or with "" as themselves again. Both are changes of
// privilege, which need a new token.
func act(s *session.Session, as string) {
	if as == "" {
		actsAs.Delete(s)
	} else {
		actsAs.Set(s, as)
	}
	s.Renew()
}

func TestRecipeActingAsAUser(t *testing.T) {
	b := sessiontest.NewBrowser(t, sessions.Handler(http.NotFoundHandler()))
	b.Session(sessions, func(s *session.Session) { s.Login("root") })
	for as, want := range map[string]string{"ann": "ann", "": "root"} {
		b.Session(sessions, func(s *session.Session) { act(s, as) })
		b.Session(sessions, func(s *session.Session) {
			if actingUser(s) != want || s.User() != "root" {
				t.Errorf("%q acts as %q, want %q", s.User(), actingUser(s), want)
			}
		})
	}
}

// page shows the flashes to a user, and not to a prefetch.
func page(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	if r.Header.Get("Sec-Purpose") == "" {
		for _, f := range s.Flashes() {
			fmt.Fprintln(w, f.Text)
		}
	}
}

func TestRecipePrefetch(t *testing.T) {
	b := newBrowser(t, sessions.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/save" {
			session.From(r.Context()).AddFlash("info", "Saved.")
			return
		}
		page(w, r)
	})))
	b.get("/save")
	r := b.request("/")
	r.Header.Set("Sec-Purpose", "prefetch")
	for i, want := range []string{"", "Saved.\n", ""} {
		if i > 0 {
			r = b.request("/")
		}
		if got := body(b.do(r)); got != want {
			t.Errorf("%d: %q", i, got)
		}
	}
}

var views = session.NewKey[int]("views")

// TestMovedFromExpress runs the program of docs/moving.md.
func TestMovedFromExpress(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /foo", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		views.Update(s, func(n int) int { return n + 1 })
		fmt.Fprintf(w, "you viewed this page %d times", views.Get(s))
	})
	b := sessiontest.NewBrowser(t, sessions.Handler(mux))
	for n := range 3 {
		if got, want := body(b.Get("/foo")), fmt.Sprintf("you viewed this page %d times", n+1); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// paid handles the form that the payment provider lets the customer's browser post.
func paid(w http.ResponseWriter, r *http.Request) {
	order, err := provider.Verify(r) // the message is signed, so it needs no session
	if err != nil {
		http.Error(w, "Bad request.", http.StatusBadRequest)
		return
	}
	http.Redirect(w, r, "/orders/"+order+"?paid", http.StatusSeeOther)
}

func order(w http.ResponseWriter, r *http.Request) {
	if s := session.From(r.Context()); r.URL.Query().Has("paid") {
		s.AddFlash("info", "Thank you!")
	}
	// ...
}

func paymentApp() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /paid", paid)
	mux.HandleFunc("GET /orders/{id}", order)
	protection := http.NewCrossOriginProtection()
	protection.AddInsecureBypassPattern("POST /paid")
	return protection.Handler(sessions.Handler(mux))
}

type paymentProvider struct{}

func (paymentProvider) Verify(r *http.Request) (order string, err error) {
	_, err = io.ReadAll(r.Body)
	return "7", err
}

var provider paymentProvider

func TestRecipePayment(t *testing.T) {
	b := newBrowser(t, paymentApp())
	b.do(b.request("/orders/6?paid")) // creates a session
	signed := b.cookie()
	r := b.request("/paid")
	r.Method = "POST"
	r.Header = http.Header{"Sec-Fetch-Site": {"cross-site"}, "Origin": {"https://pay.example"}} // and no cookie
	resp := b.do(r)
	if resp.StatusCode != http.StatusSeeOther || b.cookie() != signed {
		t.Errorf("%s; the cookie was replaced: %v", resp.Status, b.cookie() != signed)
	}
	b.get(resp.Header.Get("Location"))
	newBrowser(t, sessions.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := len(session.From(r.Context()).Flashes()); n != 2 {
			t.Errorf("%d flashes", n)
		}
	}))).replay(signed).get("/")
}

// isOwnOrigin reports whether a page of this host sent r, or a client that is not a browser:
// browsers send Origin with every WebSocket upgrade.
func isOwnOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	u, err := url.Parse(origin)
	return origin == "" || err == nil && strings.EqualFold(u.Host, r.Host)
}

func TestRecipeWebSocketOrigin(t *testing.T) {
	for origin, want := range map[string]bool{
		"": true, "https://app.example": true, "https://APP.example": true,
		"https://other.example": false, "https://app.example:8443": false, "https://app.example.other": false, "null": false, "https://[": false,
	} {
		r := httptest.NewRequest("GET", "https://app.example/socket", nil)
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		if got := isOwnOrigin(r); got != want {
			t.Errorf("Origin %q: %v, want %v", origin, got, want)
		}
	}
}

// overlap returns a middleware for n requests. Each loads its session and waits until all n
// have done so.
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

// writing handles POST /write/{i}.
func writing(w http.ResponseWriter, r *http.Request) {
	i, _ := strconv.Atoi(r.PathValue("i"))
	keyOfRequest(i).Set(session.From(r.Context()), i)
}

// wrote fails the test unless the browser's session is that of user, and has the value that
// each of n overlapping requests wrote.
func wrote(t *testing.T, b *sessiontest.Browser, m *session.Manager, user string, n int) {
	t.Helper()
	b.Session(m, func(s *session.Session) {
		for i := range n {
			if s.User() != user || keyOfRequest(i).Get(s) != i {
				t.Errorf("logged in as %q, want %q; request %d wrote %d", s.User(), user, i, keyOfRequest(i).Get(s))
			}
		}
	})
}

func TestRecipeReauthentication(t *testing.T) {
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

// goesTo returns the address to which a browser goes that gets this Location. By the URL
// standard, tabs and line breaks are dropped, and a backslash is a slash.
func goesTo(t *testing.T, location string) *url.URL {
	t.Helper()
	at, _ := url.Parse("https://example.test/password")
	to, err := at.Parse(strings.NewReplacer("\t", "", "\n", "", "\r", "", `\`, "/").Replace(location))
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func TestRecipeReauthenticationRedirectsWithinTheSite(t *testing.T) {
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
		`/./\evil.example/`:       "/", // http.Redirect would clean it to one of the paths above
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
	// The address of the page that required the password also comes from the request.
	ask := httpGet(t, sessions.Handler(recently(http.NotFoundHandler())), "https://example.test//evil.example/x?y")
	form := goesTo(t, ask.Header.Get("Location"))
	if to := goesTo(t, b.PostForm(form.RequestURI(), nil).Header.Get("Location")); to.Host != "example.test" {
		t.Errorf("leads to %s", to)
	}
}

// httpGet returns the response to a request without cookies.
func httpGet(t *testing.T, h http.Handler, target string) *http.Response {
	t.Helper()
	return sessiontest.NewBrowser(t, h).Get(target)
}

func TestRecipeReauthenticationLosesNothing(t *testing.T) {
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
				t.Errorf("the password was entered %v ago", ago)
			}
		})
	})
}

// changeOfPassword runs a test of a change of password on a fake clock, with sessions of its
// own. The change is POST /password.
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

// TestRecipeChangeOfPassword changes a password, with a double click, while other requests are
// in flight and other devices are logged in.
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
				t.Errorf("the other device is logged in as %q", s.User())
			}
		})
	})
}

// TestRecipeChangeOfPasswordDuringALogin covers a login whose password was checked before the
// change and that is committed after it, a form of the change that is sent twice, and in-flight
// requests with the previous token.
func TestRecipeChangeOfPasswordDuringALogin(t *testing.T) {
	var version atomic.Int64
	version.Store(1)
	current := func(string) int { return int(version.Load()) }
	var later chan struct{} // closed after the response to the later change
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
					t.Errorf("%s: logged in as %q", name, s.User())
				}
			})
		}
	})
}

// TestRecipeTwoStepsAtOnce guesses codes in thirty concurrent requests: five codes are
// compared. A token that was planted before the password was entered is not halfway logged in.
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
			t.Errorf("the browser is halfway logged in as %q", got)
		}
		if got := body(planted.get("/halfway")); got != "" {
			t.Errorf("the planted token is halfway logged in as %q", got)
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

// extend moves the end of a remembered session about once a week, until a year after the login.
// Use it for pages, not for the files that they load.
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

// TestRecipeRememberWithASlidingEnd loads several tabs of a browser concurrently every 20 days,
// and again after a longer time.
func TestRecipeRememberWithASlidingEnd(t *testing.T) {
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
					t.Errorf("%v after the login: %s, logged in as %q", time.Since(begun), resp.Status, got)
				}
			})
			if got := cookies.Load(); (got != 1) != last {
				t.Errorf("%v after the login %d cookies are set", time.Since(begun), got)
			}
		}
		time.Sleep(20 * day)
		b.Session(m, func(s *session.Session) {
			if s.User() != "" {
				t.Errorf("%v after the login: logged in as %q", time.Since(begun), s.User())
			}
		})
	})
}

var yearsOptions = session.Options{
	RenewAfter: 30 * 24 * time.Hour,
}

// TestRecipeRememberForYears checks that with RenewAfter a session lasts longer than the 400
// days for which browsers keep a cookie, if its user uses one of several tabs.
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
					t.Errorf("RenewAfter %v: after 1500 days logged in as %q, want %q", renewAfter, s.User(), want)
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

// TestRecipeYourSessionHasEnded loads the login page concurrently in several tabs of a browser
// whose session has ended.
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

// TestRecipeRoleChangedWhileRequestsAreInFlight changes a role and then disables the account,
// while requests of two devices are in flight.
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

// TestRecipeAppsAndCommandLines uses the same routes concurrently with browsers behind HTTP
// Basic authentication and apps. One list shows the sessions of both.
func TestRecipeAppsAndCommandLines(t *testing.T) {
	const n = 5
	store, told := session.NewMemoryStore(nil), &events{}
	browsers := newManager(t, session.Options{Store: store, OnEvent: told.on})
	apps := newManager(t, session.Options{Store: store, OnEvent: told.on, Bearer: true})
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Login("ann") })
	mux.Handle("/write/{i}", overlap(2*n, http.HandlerFunc(writing)))
	mux.HandleFunc("/look", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		fmt.Fprint(w, s.User(), len(s.Names()))
	})
	h := browsersAndApps(browsers, apps, mux)
	b, a := sessiontest.NewBrowser(t, h), &app{h: h}
	get := func(target, authorization string) *http.Response {
		r := httptest.NewRequest("GET", target, nil)
		r.Header.Set("Authorization", authorization)
		return b.Do(r)
	}
	const basic = "Basic c3RhZ2luZzpzdGFnaW5n"
	for _, nothing := range []string{"bearer", "Bearer none", "BEARER  "} {
		resp := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "https://localhost/look", nil)
		r.Header.Set("Authorization", nothing)
		h.ServeHTTP(resp, r)
		if got := resp.Header().Get("Vary"); got != "Authorization" {
			t.Errorf("%q: Vary is %q", nothing, got)
		}
	}
	if told.count(session.EventRejected) > 0 {
		t.Error("an app without a token was rejected")
	}
	if get("/login", basic); body(get("/look", basic)) != "ann0" {
		t.Fatal("the browser is not logged in")
	}
	if a.get("/login"); a.token == "" {
		t.Fatal("the app is not logged in")
	}
	token := a.token
	atOnce(2*n, func(i int) {
		if target := fmt.Sprint("/write/", i); i < n {
			get(target, basic)
		} else {
			(&app{h: h, token: token}).get(target)
		}
	})
	if inBrowser, inApp := body(get("/look", basic)), body(a.get("/look")); inBrowser != "ann5" || inApp != "ann5" {
		t.Errorf("the browser has %q, the app %q", inBrowser, inApp)
	}
	if all, err := browsers.List(t.Context(), "ann"); len(all) != 2 || err != nil {
		t.Errorf("%d sessions are listed: %v", len(all), err)
	}
}

// TestRecipeVisitorsAndStaff logs in customer 42 and employee 42 concurrently, the employee on
// two devices. The limit for customers is one session.
func TestRecipeVisitorsAndStaff(t *testing.T) {
	defer func(m *session.Manager) { visitors = m }(visitors)
	visitors = newManager(t, session.Options{
		Store: store, Secrets: [][]byte{secret}, MaxPerUser: 1,
		Cookie: session.CookieOptions{Name: "__Host-Http-visitor"},
	})
	h := nested()
	bs := []*sessiontest.Browser{sessiontest.NewBrowser(t, h), sessiontest.NewBrowser(t, h)}
	atOnce(3, func(i int) {
		if i == 2 {
			bs[0].Session(visitors, func(s *session.Session) { s.Login("42") })
		} else {
			bs[i].Session(staff, func(s *session.Session) { s.Login(employee("42")) })
		}
	})
	listed := func(m *session.Manager, user string, want int) {
		t.Helper()
		if all, err := m.List(t.Context(), user); len(all) != want || err != nil {
			t.Errorf("%s has %d sessions, want %d: %v", user, len(all), want, err)
		}
	}
	listed(visitors, "42", 1)
	listed(staff, employee("42"), 2)
	if err := visitors.RevokeAll(t.Context(), "42"); err != nil {
		t.Error(err)
	}
	for _, b := range bs {
		if got := body(b.Get("/")); got != `visitor "", employee "staff:42"` {
			t.Error(got)
		}
	}
	if err := staff.RevokeAll(t.Context(), employee("42")); err != nil {
		t.Error(err)
	}
	bs[0].Session(visitors, func(s *session.Session) { s.Login("42") })
	if got := body(bs[0].Get("/")); got != `visitor "42", employee ""` {
		t.Error(got)
	}
}

// tenants maps the hosts that this program serves to their tenants. The name of a tenant has
// no slash.
var tenants = map[string]string{"bank.example": "bank", "mallory.example": "mallory"}

// tenantOf returns the tenant to whose site a request was sent, or "".
func tenantOf(r *http.Request) string {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return tenants[strings.ToLower(host)]
}

// loginAt logs a user in at the tenant of the request.
func loginAt(r *http.Request, user string) {
	session.From(r.Context()).Login(tenantOf(r) + "/" + user)
}

// userAt returns the user who is logged in at the tenant of the request, or "". A session of
// another tenant does not count.
func userAt(r *http.Request) string {
	tenant, user, _ := strings.Cut(session.From(r.Context()).User(), "/")
	if tenant == "" || tenant != tenantOf(r) {
		return ""
	}
	return user
}

// separately returns a handler that serves each tenant with a Manager of its own.
// storeOf returns a Store that has no records of another tenant.
func separately(secret []byte, storeOf func(tenant string) session.Store, next http.Handler) (http.Handler, error) {
	handlers := map[string]http.Handler{"": http.NotFoundHandler()}
	for _, tenant := range tenants {
		m, err := session.New(&session.Options{Store: storeOf(tenant), Secrets: [][]byte{secret}})
		if err != nil {
			return nil, err
		}
		handlers[tenant] = m.Handler(next)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handlers[tenantOf(r)].ServeHTTP(w, r)
	}), nil
}

// TestRecipeTenants logs in the admins of two tenants concurrently. Each then sends its own
// token to the other tenant, as an attacker with a token can.
func TestRecipeTenants(t *testing.T) {
	m := newManager(t, session.Options{})
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) { loginAt(r, "admin") })
	mux.HandleFunc("/look", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, userAt(r)) })
	together := m.Handler(mux)

	plain := http.NewServeMux()
	plain.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Login("admin") })
	plain.HandleFunc("/look", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, session.From(r.Context()).User()) })
	stores := map[string]session.Store{"bank": session.NewMemoryStore(nil), "mallory": session.NewMemoryStore(nil)}
	apart, err := separately(secret, func(tenant string) session.Store { return stores[tenant] }, plain)
	if err != nil {
		t.Fatal(err)
	}

	for name, h := range map[string]http.Handler{"one Manager": together, "a Manager each": apart} {
		ask := func(host, path, cookie string) *http.Response {
			r := httptest.NewRequest("GET", "https://"+host+path, nil)
			if cookie != "" {
				r.Header.Set("Cookie", cookie)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w.Result()
		}
		login := func(host string) (cookie string) {
			cookie, _, _ = strings.Cut(ask(host, "/login", "").Header.Get("Set-Cookie"), ";")
			return cookie
		}
		hosts, cookies := []string{"bank.example", "Mallory.example:443"}, make([]string, 2)
		atOnce(2, func(i int) { cookies[i] = login(hosts[i]) })
		atOnce(20, func(i int) {
			at, of := i/2%2, i%2
			want := ""
			if at == of {
				want = "admin"
			}
			if got := body(ask(hosts[at], "/look", cookies[of])); got != want {
				t.Errorf("%s: %s accepts the token of %s for %q, want %q", name, hosts[at], hosts[of], got, want)
			}
		})
		const nobodys = "elsewhere.example"
		for _, cookie := range append(cookies, login(nobodys)) {
			if got := body(ask(nobodys, "/look", cookie)); strings.Contains(got, "admin") {
				t.Errorf("%s: at a host of no tenant %s is logged in as %q", name, cookie, got)
			}
		}
	}
	if err := m.RevokeAll(t.Context(), "mallory/admin"); err != nil {
		t.Error(err)
	}
	for user, want := range map[string]int{"bank/admin": 1, "mallory/admin": 0, "admin": 0} {
		if all, err := m.List(t.Context(), user); len(all) != want || err != nil {
			t.Errorf("%s has %d sessions, want %d: %v", user, len(all), want, err)
		}
	}
	for tenant, store := range stores {
		if all, err := store.List(t.Context(), "admin"); len(all) != 1 || err != nil {
			t.Errorf("%s has %d sessions of its admin: %v", tenant, len(all), err)
		}
	}
}

// accountsOf returns a handler with a cookie for each of several accounts. The path selects
// the account: /u/0/inbox, /u/1/inbox.
func accountsOf(store session.Store, secret []byte, next http.Handler) (http.Handler, error) {
	var accounts [4]http.Handler
	for i := range accounts {
		m, err := session.New(&session.Options{
			Store:   store,
			Secrets: [][]byte{secret},
			Cookie:  session.CookieOptions{Name: fmt.Sprintf("__Host-Http-account-%d", i)},
		})
		if err != nil {
			return nil, err
		}
		accounts[i] = m.Handler(http.StripPrefix(fmt.Sprintf("/u/%d", i), next))
	}
	mux := http.NewServeMux()
	for i, h := range accounts {
		mux.Handle(fmt.Sprintf("/u/%d/", i), h)
	}
	return mux, nil
}

// TestRecipeSeveralAccounts logs in one browser with two accounts concurrently, and uses each
// in tabs of its own.
func TestRecipeSeveralAccounts(t *testing.T) {
	store := session.NewMemoryStore(nil)
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		session.From(r.Context()).Login(r.FormValue("user"))
	})
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Logout() })
	mux.HandleFunc("/visit", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		visits.Update(s, func(n int) int { return n + 1 })
		fmt.Fprint(w, s.User())
	})
	h, err := accountsOf(store, secret, mux)
	if err != nil {
		t.Fatal(err)
	}
	b, users := sessiontest.NewBrowser(t, h), []string{"ann", "bob"}
	atOnce(2, func(i int) { b.Get(fmt.Sprintf("/u/%d/login?user=%s", i, users[i])) })
	atOnce(20, func(i int) {
		if got := body(b.Get(fmt.Sprintf("/u/%d/visit", i%2))); got != users[i%2] {
			t.Errorf("the tab of %s is logged in as %q", users[i%2], got)
		}
	})
	for _, user := range users {
		if all, err := store.List(t.Context(), user); len(all) != 1 || err != nil {
			t.Errorf("%s has %d sessions: %v", user, len(all), err)
		}
	}
	b.Get("/u/0/logout")
	for i, want := range []string{"", "bob", ""} {
		if got := body(b.Get(fmt.Sprintf("/u/%d/visit", i))); got != want {
			t.Errorf("after the logout of the first, account %d is %q, want %q", i, got, want)
		}
	}
	// The cookie of one account is not valid for another.
	for _, c := range b.Do(httptest.NewRequest("GET", "/u/3/login?user=eve", nil)).Cookies() {
		r := httptest.NewRequest("GET", "/u/2/visit", nil)
		r.Header.Set("Cookie", "__Host-Http-account-2="+c.Value)
		if got := body(sessiontest.NewBrowser(t, h).Do(r)); got != "" {
			t.Errorf("a cookie of another account is logged in as %q", got)
		}
	}
}

// renamed serves browsers that have only the cookie of the former name with the Manager of that
// name. Both Managers have the same Store and Secrets.
func renamed(former, current *session.Manager, formerName, currentName string, next http.Handler) http.Handler {
	byFormer, byCurrent := former.Handler(next), current.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.CookiesNamed(formerName)) > 0 && len(r.CookiesNamed(currentName)) == 0 {
			byFormer.ServeHTTP(w, r)
		} else {
			byCurrent.ServeHTTP(w, r)
		}
	})
}

// TestRecipeRenamedCookieBesideOldProcesses covers the first of two deployments: processes that
// know only the former name still serve all browsers.
func TestRecipeRenamedCookieBesideOldProcesses(t *testing.T) {
	const n = 10
	store := session.NewMemoryStore(nil)
	former := newManager(t, session.Options{Store: store})
	current := newManager(t, session.Options{Store: store, Cookie: session.CookieOptions{Domain: "example.test"}})
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Login("ann") })
	mux.Handle("/write/{i}", overlap(n, http.HandlerFunc(writing)))
	processes := []http.Handler{renamed(current, former, "__Secure-session", "__Host-Http-session", mux), former.Handler(mux)}
	var turn atomic.Int64
	b := sessiontest.NewBrowser(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		processes[(turn.Add(1)-1)%2].ServeHTTP(w, r)
	}))
	b.Get("/login")
	b.Get("/login")
	atOnce(n, func(i int) { b.Get(fmt.Sprint("/write/", i)) })
	wrote(t, b, former, "ann", n)
}

// TestRecipeRenamedCookie covers a deployment that changes the name and the Domain of the
// cookie while browsers are logged in.
func TestRecipeRenamedCookie(t *testing.T) {
	const n = 10
	store := session.NewMemoryStore(nil)
	former := newManager(t, session.Options{Store: store})
	current := newManager(t, session.Options{Store: store, Cookie: session.CookieOptions{Domain: "example.test"}})
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Login("ann") })
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Logout() })
	mux.HandleFunc("/look", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, session.From(r.Context()).User()) })
	mux.Handle("/write/{i}", overlap(n, http.HandlerFunc(writing)))
	b := sessiontest.NewBrowser(t, renamed(former, current, "__Host-Http-session", "__Secure-session", mux))
	b.Session(former, func(s *session.Session) { s.Login("ann") })
	atOnce(n, func(i int) {
		if resp := b.Get(fmt.Sprint("/write/", i)); resp.StatusCode != 200 || len(resp.Cookies()) > 0 {
			t.Errorf("%s, cookies %v", resp.Status, resp.Cookies())
		}
	})
	wrote(t, b, former, "ann", n)
	cookies := func(path, want string) {
		t.Helper()
		got := ""
		for _, c := range b.Get(path).Cookies() {
			got += fmt.Sprint(c.Name, " ", c.Domain, " ", c.MaxAge, "\n")
		}
		if got != want {
			t.Errorf("%s sets %q, want %q", path, got, want)
		}
	}
	cookies("/login", "__Host-Http-session  0\n")
	cookies("/logout", "__Host-Http-session  -1\n")
	cookies("/login", "__Secure-session example.test 0\n")
	// A leftover cookie of the former name is ignored beside the current one.
	junk := httptest.NewRequest("GET", "/look", nil)
	junk.Header.Set("Cookie", "__Host-Http-session=junk")
	if got := body(b.Do(junk)); got != "ann" {
		t.Errorf("logged in as %q", got)
	}
}

const frontEnd = "http://localhost:5173" // the development server of the front end

// development allows the front end on another port to make requests with the cookie. It wraps
// sessions.Handler, so that the front end can read its error responses too.
func development(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Add("Vary", "Origin")
		if r.Header.Get("Origin") == frontEnd {
			h.Set("Access-Control-Allow-Origin", frontEnd)
			h.Set("Access-Control-Allow-Credentials", "true")
			if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
				h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE")
				h.Set("Access-Control-Allow-Headers", "Content-Type")
				w.WriteHeader(http.StatusNoContent)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func developed(sessions *session.Manager, mux http.Handler) (http.Handler, error) {
	protection := http.NewCrossOriginProtection()
	err := protection.AddTrustedOrigin(frontEnd)
	return development(protection.Handler(sessions.Handler(mux))), err
}

// A page of http://localhost:5173 logs in at http://localhost:8080, and makes several
// requests at once.
func TestRecipeFrontEndOnAnotherPort(t *testing.T) {
	const n = 10
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy, Cookie: session.CookieOptions{Insecure: true}})
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Login("ann") })
	mux.Handle("/write/{i}", overlap(n, http.HandlerFunc(writing)))
	h, err := developed(m, mux)
	if err != nil {
		t.Fatal(err)
	}
	b := sessiontest.NewBrowser(t, h)
	fetch := func(method, path, origin string) *http.Response {
		r := httptest.NewRequest(method, "http://localhost:8080"+path, nil)
		r.Header.Set("Origin", origin)
		r.Header.Set("Sec-Fetch-Site", "same-site")
		r.Header.Set("Sec-Fetch-Mode", "cors")
		r.Header.Set("Sec-Fetch-Dest", "empty")
		if method == "OPTIONS" {
			r.Header.Set("Access-Control-Request-Method", "POST")
		}
		return b.Do(r)
	}
	expect := func(resp *http.Response, status int) {
		t.Helper()
		allowed := resp.Header.Get("Access-Control-Allow-Origin") == frontEnd && resp.Header.Get("Access-Control-Allow-Credentials") == "true"
		if resp.StatusCode != status || allowed != (status != http.StatusForbidden) || !slices.Contains(resp.Header["Vary"], "Origin") {
			t.Errorf("%s, want %d: %v", resp.Status, status, resp.Header)
		}
	}
	expect(fetch("OPTIONS", "/login", frontEnd), http.StatusNoContent)
	expect(fetch("POST", "/login", "http://localhost:6666"), http.StatusForbidden)
	expect(fetch("POST", "/login", frontEnd), http.StatusOK)
	atOnce(n, func(i int) { expect(fetch("POST", fmt.Sprint("/write/", i), frontEnd), http.StatusOK) })
	spy.down.Store(true)
	expect(fetch("POST", "/login", frontEnd), http.StatusServiceUnavailable)
	spy.down.Store(false)
	all, err := m.List(t.Context(), "ann")
	if err != nil || len(all) != 1 {
		t.Fatalf("%d sessions are listed: %v", len(all), err)
	}
	for i := range n {
		if got, ok := keyOfRequest(i).Of(all[0]); !ok || got != i {
			t.Errorf("the value %d is lost", i)
		}
	}
}

// site serves assets outside the check for a user.
func site(sessions *session.Manager, assets, pages http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /assets/", assets) // never calls session.From
	mux.Handle("/", sessions.RequireUser(pages, http.RedirectHandler("/login", http.StatusSeeOther)))
	return mux
}

// revalidated lets browsers cache files, and revalidate them before each use.
func revalidated(files http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "private, no-cache")
		files.ServeHTTP(w, r)
	})
}

// TestRecipeStaticFiles requests a page and its files concurrently.
func TestRecipeStaticFiles(t *testing.T) {
	const n = 5 // requests for each path
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy})
	yesterday := time.Now().Add(-day)
	files := http.FileServerFS(fstest.MapFS{
		"assets/app.js":    {Data: []byte("script"), ModTime: yesterday},
		"pages/start":      {Data: []byte("page"), ModTime: yesterday},
		"files/report.pdf": {Data: []byte("report"), ModTime: yesterday},
	})
	pages := http.NewServeMux()
	pages.Handle("/pages/", files)
	pages.Handle("/files/", revalidated(files))
	paths := []string{"/assets/app.js", "/pages/start", "/files/report.pdf"}
	var arrived sync.WaitGroup
	arrived.Add(len(paths) * n)
	app := m.Handler(site(m, files, pages))
	b := sessiontest.NewBrowser(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Overlap") != "" {
			arrived.Done()
			arrived.Wait()
		}
		app.ServeHTTP(w, r)
	}))
	for i, want := range []int{http.StatusOK, http.StatusSeeOther, http.StatusSeeOther} {
		if got := b.Get(paths[i]).StatusCode; got != want {
			t.Errorf("%s without a user: %d, want %d", paths[i], got, want)
		}
	}
	b.Session(m, func(s *session.Session) { s.Login("ann") })
	spy.forget()
	atOnce(len(paths)*n, func(i int) {
		path := paths[i%len(paths)]
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Overlap", "yes")
		r.Header.Set("If-Modified-Since", yesterday.Add(time.Second).UTC().Format(http.TimeFormat))
		resp := b.Do(r)
		got := fmt.Sprintf("%d %q %q", resp.StatusCode, resp.Header.Get("Cache-Control"), resp.Header.Get("Vary"))
		want := map[string]string{
			"/assets/app.js":    `304 "" ""`,
			"/pages/start":      `304 "no-store" "Cookie"`, // no browser has anything to compare
			"/files/report.pdf": `304 "private, no-cache" "Cookie"`,
		}[path]
		if got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	})
	if got := spy.count("Load"); got != 2*n {
		t.Errorf("%d loads, want %d: none for assets", got, 2*n)
	}
}

// limited limits the size of request bodies.
func limited(sessions *session.Manager, next http.Handler) http.Handler {
	return http.MaxBytesHandler(sessions.Handler(next), 1<<10)
}

// TestRecipeMaxBytesHandler sends concurrent requests with bodies within the limit and beyond
// it.
func TestRecipeMaxBytesHandler(t *testing.T) {
	const n = 5 // of each kind
	for where, around := range map[string]func(m *session.Manager, next http.Handler) http.Handler{
		"around": limited,
		"inside": func(m *session.Manager, next http.Handler) http.Handler { // why it belongs around
			return m.Handler(http.MaxBytesHandler(next, 1<<10))
		},
	} {
		m := newManager(t, session.Options{})
		mux := http.NewServeMux()
		mux.HandleFunc("/write/{i}", func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.ReadAll(r.Body); err != nil {
				http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
				return
			}
			writing(w, r)
		})
		h := around(m, overlap(2*n, mux))
		srv := startServer(t, "HTTP/1.1", h)
		cookie := open(t, m, "ann")
		atOnce(2*n, func(i int) {
			r := request(t, fmt.Sprint(srv.URL, "/write/", i), cookie)
			size, want, closed := 1<<10, http.StatusOK, false
			if i >= n {
				size, want, closed = 1<<10+1, http.StatusRequestEntityTooLarge, where == "around"
			}
			r.Method, r.Body, r.ContentLength = "POST", io.NopCloser(strings.NewReader(strings.Repeat("x", size))), int64(size)
			resp, err := srv.Client().Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			if resp.StatusCode != want || resp.Close != closed {
				t.Errorf("%s, %d bytes: %s, closed %v; want %d, %v", where, size, resp.Status, resp.Close, want, closed)
			}
		})
		newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			for i := range 2 * n {
				if _, ok := keyOfRequest(i).Lookup(s); ok != (i < n) {
					t.Errorf("%s: request %d wrote: %v", where, i, ok)
				}
			}
		}})).replay(cookie).get("/")
	}
}

// upstream forwards requests to another server, without the cookie named name.
func upstream(to *url.URL, name string) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.SetXForwarded()
			r.Out.Host = r.In.Host
			r.Out.Header["Cookie"] = withoutCookie(r.In.Header["Cookie"], name)
		},
		ModifyResponse: func(resp *http.Response) error {
			resp.Header["Set-Cookie"] = slices.DeleteFunc(resp.Header["Set-Cookie"], isCookie(name))
			return nil
		},
	}
}

// withoutCookie returns the lines of a Cookie header without the cookies named name. The other
// cookies are unchanged.
func withoutCookie(lines []string, name string) (rest []string) {
	for _, line := range lines {
		pairs := slices.DeleteFunc(strings.Split(line, ";"), isCookie(name))
		if len(pairs) > 0 {
			rest = append(rest, strings.TrimSpace(strings.Join(pairs, ";")))
		}
	}
	return rest
}

// isCookie returns a function that reports whether a pair of Cookie, or a line of Set-Cookie,
// is of the cookie named name.
func isCookie(name string) func(pair string) bool {
	return func(pair string) bool {
		n, _, _ := strings.Cut(pair, "=")
		return strings.Trim(n, " \t") == name
	}
}

// TestRecipeReverseProxy sends concurrent requests of one session that write to it and are
// forwarded.
func TestRecipeReverseProxy(t *testing.T) {
	const n = 10
	m := newManager(t, session.Options{})
	var mu sync.Mutex
	var seen []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, strings.Join(r.Header["Cookie"], " and "))
		mu.Unlock()
		w.Header().Add("Set-Cookie", "__Host-Http-session=; Path=/; Secure; Max-Age=0") // would log the user out
		w.Header().Add("Set-Cookie", "seen=yes; Path=/")
	}))
	t.Cleanup(other.Close)
	to, err := url.Parse(other.URL)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	proxy := upstream(to, "__Host-Http-session")
	mux.Handle("/write/{i}", overlap(n, m.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writing(w, r)
		proxy.ServeHTTP(w, r)
	}), nil)))
	b := sessiontest.NewBrowser(t, m.Handler(mux))
	b.Session(m, func(s *session.Session) { s.Login("ann") })
	atOnce(n, func(i int) {
		r := httptest.NewRequest("GET", fmt.Sprint("/write/", i), nil)
		r.Header.Set("Cookie", `a=1; odd="x, y" z;b=2`)
		resp := b.Do(r)
		if got := strings.Join(resp.Header["Set-Cookie"], " and "); resp.StatusCode != http.StatusOK || got != "seen=yes; Path=/" {
			t.Errorf("%s sets %q", resp.Status, got)
		}
	})
	for _, got := range seen {
		if others := strings.TrimSuffix(got, "; seen=yes"); others != `a=1; odd="x, y" z;b=2` {
			t.Errorf("the other server received %q", got)
		}
	}
	if len(seen) != n {
		t.Errorf("%d requests were passed on, want %d", len(seen), n)
	}
	wrote(t, b, m, "ann", n)
	for line, want := range map[string]string{
		"__Host-Http-session=t":        "",
		" \t__Host-Http-session \t= t": "",
		"__Host-Http-session":          "",
		"__Host-Http-session=t; a=1; __Host-Http-session=u;__Host-Http-session=": "a=1",
		"a=__Host-Http-session=t; __Host-Http-sessions=1; session=2":             "a=__Host-Http-session=t; __Host-Http-sessions=1; session=2",
		"a=1;;b=2;": "a=1;;b=2;",
	} {
		if got := strings.Join(withoutCookie([]string{line}, "__Host-Http-session"), " and "); got != want {
			t.Errorf("%q: %q is left, want %q", line, got, want)
		}
	}
}

// account answers browsers and apps.
func account(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	if s.User() == "" {
		w.Header().Set("WWW-Authenticate", `Bearer realm="account", Cookie realm="account"`)
		http.Error(w, "Please log in.", http.StatusUnauthorized)
		return
	}
	fmt.Fprint(w, s.User())
}

// TestRecipeUnauthorized sends concurrent requests of browsers and apps, with and without a
// user.
func TestRecipeUnauthorized(t *testing.T) {
	const n = 3 // of each kind
	memory := sessiontest.NewStore(nil)
	browsers := newManager(t, session.Options{Store: memory})
	apps := newManager(t, session.Options{Store: memory, Bearer: true})
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Login("ann") })
	mux.Handle("/account", overlap(4*n, http.HandlerFunc(account)))
	mux.HandleFunc("/outage", account)
	h := browsersAndApps(browsers, apps, mux)
	known, unknown := sessiontest.NewBrowser(t, h), sessiontest.NewBrowser(t, h)
	app := &app{h: h}
	known.Get("/login")
	app.get("/login")
	ask := func(b *sessiontest.Browser, path, token string) *http.Response {
		r := httptest.NewRequest("GET", path, nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		return b.Do(r)
	}
	atOnce(4*n, func(i int) {
		b, token := []*sessiontest.Browser{known, unknown, unknown, unknown}[i%4], []string{"", "", app.token, "none"}[i%4]
		want, challenge := http.StatusOK, ""
		if i%2 == 1 {
			want, challenge = http.StatusUnauthorized, `Bearer realm="account", Cookie realm="account"`
		}
		resp := ask(b, "/account", token)
		if got := resp.Header.Get("WWW-Authenticate"); resp.StatusCode != want || got != challenge {
			t.Errorf("%d: %s with the challenge %q, want %d with %q", i%4, resp.Status, got, want, challenge)
		}
	})
	memory.Fail(errDown)
	for _, token := range []string{"", app.token} { // in an outage it is not known whether a user is logged in
		if resp := ask(known, "/outage", token); resp.StatusCode != http.StatusServiceUnavailable || resp.Header["Www-Authenticate"] != nil {
			t.Errorf("in an outage: %s with the challenge %q", resp.Status, resp.Header["Www-Authenticate"])
		}
	}
}

// basket is the value of the first version of a program.
type basket struct{ Items []string }

var baskets = session.NewKey[basket]("basket")

// coupon was added in the second version, with a key of its own.
var coupon = session.NewKey[string]("basket.coupon")

// TestRecipeRollingDeployment sends concurrent requests of one browser to processes of both
// versions.
func TestRecipeRollingDeployment(t *testing.T) {
	const n = 10
	type basketWithCoupon struct {
		Items  []string
		Coupon string
	}
	extended := session.NewKey[basketWithCoupon]("basket")

	m := newManager(t, session.Options{})
	mux := http.NewServeMux()
	mux.HandleFunc("/old/{item}", func(w http.ResponseWriter, r *http.Request) {
		baskets.Update(session.From(r.Context()), func(b basket) basket {
			b.Items = append(b.Items, r.PathValue("item"))
			return b
		})
	})
	mux.HandleFunc("/new/{item}", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		baskets.Update(s, func(b basket) basket {
			b.Items = append(b.Items, r.PathValue("item"))
			return b
		})
		coupon.Set(s, "SUMMER")
	})
	b := sessiontest.NewBrowser(t, m.Handler(overlap(2*n, mux)))
	b.Session(m, func(s *session.Session) { extended.Set(s, basketWithCoupon{Coupon: "of a field"}) })
	atOnce(2*n, func(i int) { b.Get(fmt.Sprintf("/%s/%d", []string{"old", "new"}[i%2], i)) })
	b.Session(m, func(s *session.Session) {
		if got := extended.Get(s); len(got.Items) != 2*n || coupon.Get(s) != "SUMMER" {
			t.Errorf("the basket has %d items, and the coupon %q", len(got.Items), coupon.Get(s))
		}
		if got := extended.Get(s).Coupon; got != "" { // a field of basket would be lost
			t.Errorf("the old version has kept an unknown field: %q", got)
		}
	})
}
