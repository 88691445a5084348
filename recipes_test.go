package session_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sessiontest"
)

// These are the recipes of docs/recipes, as it prints them, and each of them
// run. TestDocuments holds the two together.

// recently calls next if the user typed the password within the last five minutes.
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

// again answers the form of /password. A Login of the user who is logged in
// already renews the token, and in-flight requests lose nothing by it.
func again(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context()) // the password is right
	s.Login(s.User())
	http.Redirect(w, r, localTarget(r.FormValue("then")), http.StatusSeeOther)
}

// localTarget returns target if every browser takes it for a path of this site,
// and "/" otherwise. Browsers read "//evil.example" and "/\evil.example" as another
// host, and drop tabs and line breaks first.
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

// withPassword logs a user in whose password was found right. The version was read
// together with the password's hash.
func withPassword(s *session.Session, user string, version int) {
	s.Login(user)
	passwordVersion.Update(s, func(v int) int { return max(v, version) })
}

// currentPassword sends users to the login page who logged in with a password that
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

// login remembers who asks for it.
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

// problem answers an API's client (RFC 9457).
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

// unauthorized answers a client that is not logged in.
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

// Visitors and staff have cookies of their own, over one Store.
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

// employee returns the user name of an employee's sessions: customer 42 is another user.
func employee(id string) (user string) { return "staff:" + id }

func nested() http.Handler {
	return visitors.Handler(staff.Handler(http.HandlerFunc(both)))
}

// embedded is for pages in a frame of another site: a cookie that is sent there,
// and a jar of its own for each site that embeds them.
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

// A halfway login has given the password and not the second factor: it is nobody's
// yet, and over by itself.
type halfway struct {
	User  string
	Until time.Time
	Tries int
}

var firstFactor = session.NewKey[halfway]("first-factor")

// passwordIsRight renews the token, so that a token that an attacker has planted in the
// browser is of no use for the second step.
func passwordIsRight(s *session.Session, user string) {
	s.Renew()
	firstFactor.Set(s, halfway{User: user, Until: time.Now().Add(5 * time.Minute)})
}

// secondFactor logs the user in if the code is right, and reports whether it was.
// The error is one of UpdateNow: the code was not compared.
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

// spend redeems the voucher of the session, and reports whether there was one. Of
// concurrent requests one does.
func spend(ctx context.Context, s *session.Session, redeem func(user, code string)) (bool, error) {
	if code, ok, err := voucher.Take(ctx, s); err != nil || !ok {
		return false, err // no voucher, or another request has taken it
	} else {
		redeem(s.User(), code)
	}
	return true, nil
}

var actsAs = session.NewKey[string]("acts-as")

// actingUser is whose data a page shows. Who is logged in stays who he is: for the
// log, for his own page of devices, and to come back.
func actingUser(s *session.Session) string {
	return cmp.Or(actsAs.Get(s), s.User())
}

// act lets an administrator act as a user, or with "" as themselves again. Both are a change
// of privilege, which needs a new token.
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

// page shows the flashes to a person, and not to a browser that prefetches.
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

// The program of docs/moving.md.
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

// paid is what the payment provider lets the customer's browser post.
func paid(w http.ResponseWriter, r *http.Request) {
	order, err := provider.Verify(r) // the message is signed: it needs no session
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
	b.do(b.request("/orders/6?paid")) // has a session
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

// isOwnOrigin reports whether r was sent by a page of this host, or by a client that is not
// a browser: browsers send Origin with every WebSocket upgrade.
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
