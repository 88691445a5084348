package session_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sessiontest"
)

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
				t.Errorf("%s: at a host of no tenant %s is in as %q", name, cookie, got)
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
			t.Errorf("the tab of %s is in as %q", users[i%2], got)
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
			t.Errorf("a cookie of another account is in as %q", got)
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
		t.Errorf("in as %q", got)
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
