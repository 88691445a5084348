package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"
	"github.com/coatcheck/session"
)

// A boundApp is an application with Options.DeviceBound over HTTPS. It notes what browsers send to
// the endpoint.
type boundApp struct {
	base string
	mu   sync.Mutex
	legs []endpointLeg
	lose int // how many answers of the endpoint are still to be lost
}

// An endpointLeg is one request to the endpoint.
type endpointLeg struct {
	status                int
	isRefresh, hasCookies bool
	site                  string // Sec-Fetch-Site
}

const (
	sessionCookie = "__Host-Http-session"
	boundCookie   = "__Host-Bound-session-" // and a part of the session's id
	period        = 5 * time.Minute         // Options.DeviceBound
)

func serveBound(t testing.TB, o session.Options) *boundApp {
	t.Helper()
	a := &boundApp{}
	a.base = serve(t, "app.test", true, a.handler(t, o))
	return a
}

// serveBoundAhead is serveBound with a server whose clock the test moves ahead: the application runs in
// the virtual time of testing/synctest, beside the real time of the browsers. advance waits until the
// requests in progress have ended.
func serveBoundAhead(t *testing.T, o session.Options) (a *boundApp, advance func(d time.Duration)) {
	t.Helper()
	a = &boundApp{}
	calls, ended := make(chan func()), make(chan struct{})
	do := func(f func(done func())) {
		done := make(chan struct{})
		calls <- func() { f(func() { close(done) }) }
		<-done
	}
	began := time.Now()
	go func() {
		defer close(ended)
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Until(began)) // virtual time begins in the year 2000
			for f := range calls {
				f()
			}
		})
	}()
	t.Cleanup(func() {
		close(calls)
		<-ended
	})
	var h http.Handler
	do(func(done func()) { h = a.handler(t, o); done() })
	a.base = serve(t, "app.test", true, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		form, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		// Inside, the request must not wait for anything outside: neither for its body nor for its end.
		r = r.WithContext(context.WithoutCancel(r.Context()))
		r.Body = io.NopCloser(bytes.NewReader(form))
		answer := httptest.NewRecorder()
		do(func(done func()) {
			go func() {
				defer done()
				h.ServeHTTP(answer, r)
			}()
		})
		replay(w, answer)
	}))
	return a, func(d time.Duration) { do(func(done func()) { time.Sleep(d); done() }) }
}

// replay writes a recorded response.
func replay(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	w.Write(answer.Body.Bytes())
}

// handler returns the application, which notes what the endpoint gets and loses some of its answers.
func (a *boundApp) handler(t testing.TB, o session.Options) http.Handler {
	t.Helper()
	o.DeviceBound = period
	m, err := session.New(&o)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		session.From(r.Context()).Login(r.FormValue("user"))
		http.Redirect(w, r, "/who", http.StatusSeeOther)
	})
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Logout(); fmt.Fprint(w, "ok") })
	mux.HandleFunc("/who", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		fmt.Fprintf(w, "user:%s bound:%v err:%v", s.User(), s.DeviceBound(), s.Err())
	})
	protected := http.NewCrossOriginProtection().Handler(m.Handler(mux))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/login": // a login may come from another site
			m.Handler(mux).ServeHTTP(w, r)
		case !strings.HasPrefix(r.URL.Path, "/.session/"):
			protected.ServeHTTP(w, r)
		default:
			answer := httptest.NewRecorder()
			protected.ServeHTTP(answer, r)
			a.mu.Lock()
			a.legs = append(a.legs, endpointLeg{answer.Code, r.Header.Get("Sec-Secure-Session-Id") != "", len(r.Cookies()) > 0, r.Header.Get("Sec-Fetch-Site")})
			isLost := a.lose > 0
			if isLost {
				a.lose--
			}
			a.mu.Unlock()
			if isLost {
				panic(http.ErrAbortHandler) // the connection ends
			}
			replay(w, answer)
		}
	})
}

// count returns how many requests to the endpoint were of this kind.
func (a *boundApp) count(isIt func(l endpointLeg) bool) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.legs {
		if isIt(l) {
			n++
		}
	}
	return n
}

func isAccepted(l endpointLeg) bool { return l.isRefresh && l.status == http.StatusOK }

// startBinder starts a Chromium that can bind sessions, with keys in software. The hash of the
// certificate makes it valid: with ignore-certificate-errors Chromium ignores the headers.
func startBinder(t testing.TB, profile string) *chrome {
	t.Helper()
	return startBinderWith(t, profile, withoutQuota)
}

const (
	softwareKeys = "EnableBoundSessionCredentialsSoftwareKeysForManualTesting"
	withoutQuota = "DeviceBoundSessions:RefreshQuota/false," + softwareKeys // the tests sign more often than users do
)

func startBinderWith(t testing.TB, profile, features string) *chrome {
	t.Helper()
	s := httptest.NewTLSServer(nil) // all servers of httptest have one certificate
	s.Close()
	return startBinderFor(t, profile, features, s.Certificate())
}

// startBinderFor starts a Chromium that accepts a certificate.
func startBinderFor(t testing.TB, profile, features string, certificate *x509.Certificate) *chrome {
	t.Helper()
	sum := sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
	return startChromeWith(t, profile,
		chromedp.Flag("ignore-certificate-errors-spki-list", base64.StdEncoding.EncodeToString(sum[:])),
		chromedp.Flag("enable-features", features),
	)
}

// who visits a page until it says this.
func (c *chrome) who(a *boundApp, want string) {
	c.t.Helper()
	eventually(c.t, callLimit, func() bool { c.open(a.base + "/who"); return strings.Contains(c.text(), want) }, func() string {
		return fmt.Sprintf("the page says %q, want %q; the endpoint had %+v", c.text(), want, a.legs)
	})
}

// value returns the value of a cookie, or "".
func (c *chrome) value(name string) string {
	for _, k := range c.cookies() {
		if k.Name == name {
			return k.Value
		}
	}
	return ""
}

// forget deletes the second cookies, as if they had run out. It waits until the browser has one that
// lasts, so that no answer on its way brings another.
func (c *chrome) forget(a *boundApp) {
	c.t.Helper()
	isLasting := func(k *network.Cookie) bool {
		return strings.HasPrefix(k.Name, boundCookie) && time.Until(time.Unix(int64(k.Expires), 0)) > 2*time.Minute
	}
	eventually(c.t, callLimit, func() bool { return slices.ContainsFunc(c.cookies(), isLasting) }, func() string {
		return fmt.Sprintf("the browser has not refreshed: %+v", c.cookies())
	})
	eventually(c.t, callLimit, func() bool { return c.remove(a, boundCookie) == 0 }, func() string {
		return "the second cookie is still there"
	})
}

// remove deletes the cookies whose names begin so, and returns how many there were.
func (c *chrome) remove(a *boundApp, prefix string) (n int) {
	c.t.Helper()
	for _, k := range c.cookies() {
		if !strings.HasPrefix(k.Name, prefix) {
			continue
		}
		n++
		if _, err := chromedp.Call(c.ctx, network.DeleteCookies, network.DeleteCookiesParams{Name: k.Name, URL: a.base}); err != nil {
			c.t.Fatal(err)
		}
	}
	return n
}

// steal asks with a copy of the session cookie alone, and returns what the page says.
func (a *boundApp) steal(t testing.TB, value string) string {
	t.Helper()
	r, err := http.NewRequest("GET", strings.Replace(a.base, "app.test", "localhost", 1)+"/who", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Cookie", sessionCookie+"="+value)
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return string(text)
}

// plant stores copies of all cookies of another browser, which stay until the browser is closed.
func (c *chrome) plant(all []*network.Cookie) {
	c.t.Helper()
	var copies []*network.CookieParam
	for _, k := range all {
		copies = append(copies, &network.CookieParam{Name: k.Name, Value: k.Value, URL: "https://" + k.Domain + "/", Path: k.Path, Secure: k.Secure, HTTPOnly: k.HTTPOnly, SameSite: k.SameSite})
	}
	if _, err := chromedp.CallBrowser(c.ctx, storage.SetCookies, storage.SetCookiesParams{Cookies: copies}); err != nil {
		c.t.Fatal(err)
	}
	if got := c.cookies(); len(got) != len(all) {
		c.t.Fatalf("the browser has the cookies %+v, want copies of %+v", got, all)
	}
}

// TestDeviceBound binds a session in a real browser: it registers and refreshes unnoticed, a copy of
// the cookie becomes worthless, four requests at once need one refresh, and a logout is final.
func TestDeviceBound(t *testing.T) {
	a := serveBound(t, session.Options{})
	c := startBinder(t, "")
	c.open(a.base + "/login?user=alice")
	c.expect("user:alice")
	c.who(a, "user:alice bound:true")
	value := c.value(sessionCookie)
	eventually(t, callLimit, func() bool { return strings.Contains(a.steal(t, value), session.ErrUnproven.Error()) }, func() string {
		return "the copy of the cookie still opens: " + a.steal(t, value)
	})
	c.who(a, "user:alice bound:true")

	c.forget(a)
	before := a.count(isAccepted)
	got := c.js(`(async () => (await Promise.all([1, 2, 3, 4].map(() => fetch("/who").then(r => r.text())))).join(";"))()`)
	if want := "user:alice bound:true err:<nil>"; got != strings.Join([]string{want, want, want, want}, ";") {
		t.Errorf("four requests at once: %s", got)
	}
	if n := a.count(isAccepted) - before; n != 1 {
		t.Errorf("%d refreshes for four requests, want 1", n)
	}

	c.open(a.base + "/logout")
	c.open(a.base + "/who")
	c.expect("user: bound:false err:<nil>")
	if all := c.cookies(); len(all) > 0 {
		t.Errorf("after the logout: %+v", all)
	}
	c.open(a.base + "/login?user=bob")
	c.who(a, "user:bob bound:true")
	if n := a.count(func(l endpointLeg) bool { return l.status != 200 && l.status != 403 || l.site != "same-origin" }); n > 0 {
		t.Errorf("the endpoint had %+v", a.legs)
	}
}

// TestDeviceBoundAfterARestart closes the browser and opens it again: the first request is proved.
func TestDeviceBoundAfterARestart(t *testing.T) {
	a := serveBound(t, session.Options{Cookie: session.CookieOptions{Persistent: true}})
	profile := t.TempDir()
	c := startBinder(t, profile)
	c.open(a.base + "/login?user=alice")
	c.who(a, "user:alice bound:true")
	c.forget(a)
	c.close()
	before := a.count(isAccepted)
	c = startBinder(t, profile)
	c.open(a.base + "/who")
	c.expect("user:alice bound:true err:<nil>")
	if a.count(isAccepted) == before {
		t.Error("the browser has not refreshed, so this test proves nothing")
	}
}

// anotherSite serves a page of another site, with logins to the application as their callbacks make them: by a
// form (SAML) and by a link (OpenID Connect). Its last link only leads there.
func (a *boundApp) anotherSite(t testing.TB) (base string) {
	t.Helper()
	return serve(t, "other.test", true, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<form method=post action="%s/login?user=alice"><button>log in</button></form>
			<a id=login href="%s/login?user=alice">log in</a> <a id=go href="%s/who">go</a>`, a.base, a.base, a.base)
	}))
}

// TestDeviceBoundByAnotherSite logs in by a form or a link of another site, and follows a link of that site
// after the second cookie has run out: neither proof has a cookie.
func TestDeviceBoundByAnotherSite(t *testing.T) {
	for _, login := range []string{"button", "#login"} {
		t.Run(login, func(t *testing.T) {
			a, advance := serveBoundAhead(t, session.Options{})
			other := a.anotherSite(t)
			c := startBinder(t, "")
			c.open(other)
			c.click(login)
			c.expect("user:")
			isRegistered := func(l endpointLeg) bool { return !l.isRefresh && l.status == http.StatusOK }
			eventually(t, callLimit, func() bool { return a.count(isRegistered) > 0 }, func() string { return "the browser registers nothing" })
			c.who(a, "user:alice bound:true")
			c.forget(a)
			advance(11 * time.Second)
			if got := a.steal(t, c.value(sessionCookie)); !strings.Contains(got, session.ErrUnproven.Error()) {
				t.Errorf("the second cookie is not needed: %s", got)
			}
			c.open(other)
			c.click("#go")
			c.expect("user:alice bound:true err:<nil>")
			for _, isRefresh := range []bool{false, true} {
				if a.count(func(l endpointLeg) bool { return l.isRefresh == isRefresh && !l.hasCookies }) == 0 {
					t.Errorf("each proof (refresh: %v) had cookies, so this test proves nothing", isRefresh)
				}
			}
		})
	}
}

// TestDeviceBoundLostAnswer loses the answer to the registration. On a connection that was used before,
// the browser repeats it and binds the session; otherwise it gives up. The user stays logged in.
func TestDeviceBoundLostAnswer(t *testing.T) {
	for _, isReused := range []bool{true, false} {
		a := serveBound(t, session.Options{})
		a.lose = 1
		c := startBinder(t, "")
		c.open(a.base + "/who")
		if isReused {
			c.js(`Promise.all([1, 2, 3, 4, 5, 6].map(() => fetch("/who").then(r => r.text())))`)
		}
		c.open(a.base + "/login?user=alice")
		if isReused {
			c.who(a, "user:alice bound:true")
			if n := a.count(func(l endpointLeg) bool { return !l.isRefresh }); n < 2 {
				t.Errorf("%d registrations: the browser has not repeated it, so this test proves nothing", n)
			}
			continue
		}
		eventually(t, callLimit, func() bool { return a.count(func(l endpointLeg) bool { return true }) > 0 }, func() string {
			return "the browser registers nothing"
		})
		for range 3 {
			c.open(a.base + "/who")
			c.expect("user:alice")
		}
	}
}

// TestDeviceBoundCopiedJar copies all cookies of a browser to a second one, which has not the key: they
// open the session for DeviceBound at most, by the clock of the server, and the owner notices nothing.
func TestDeviceBoundCopiedJar(t *testing.T) {
	a, advance := serveBoundAhead(t, session.Options{})
	owner, thief := startBinder(t, ""), startBinder(t, "")
	owner.open(a.base + "/login?user=alice")
	owner.who(a, "user:alice bound:true")
	owner.forget(a)
	advance(11 * time.Second) // from now on the session cookie alone opens nothing
	owner.open(a.base + "/who")
	owner.expect("user:alice bound:true err:<nil>")
	jar := owner.cookies()
	if len(jar) != 2 {
		t.Fatalf("the owner has the cookies %+v", jar)
	}
	thief.plant(jar)
	isAny := func(endpointLeg) bool { return true }
	legs := a.count(isAny)
	thief.open(a.base + "/who")
	thief.expect("user:alice bound:true err:<nil>")
	advance(period - 30*time.Second)
	thief.open(a.base + "/who")
	thief.expect("user:alice bound:true err:<nil>")
	advance(30 * time.Second)
	thief.open(a.base + "/who")
	thief.expect("user: bound:false err:" + session.ErrUnproven.Error())
	if n := a.count(isAny) - legs; n > 0 {
		t.Errorf("the thief's browser has called the endpoint %d times", n)
	}
	if all := thief.cookies(); len(all) != 2 {
		t.Errorf("the thief's browser has the cookies %+v", all)
	}
	owner.forget(a) // by the owner's clock, which has not moved, it has not run out
	owner.open(a.base + "/who")
	owner.expect("user:alice bound:true err:<nil>")
	thief.open(a.base + "/who")
	thief.expect("user: bound:false err:" + session.ErrUnproven.Error())
}

// TestDeviceBoundTwoSessions logs in again and again in a browser that has lost the session cookie and not
// the key, as after it was closed. It maintains all these sessions, in any order, and the last one is open.
func TestDeviceBoundTwoSessions(t *testing.T) {
	a, advance := serveBoundAhead(t, session.Options{})
	c := startBinder(t, "")
	for _, user := range []string{"alice", "bob", "carol", "dave"} {
		c.remove(a, sessionCookie)
		c.open(a.base + "/login?user=" + user)
		c.who(a, "user:"+user+" bound:true")
		advance(11 * time.Second)
		c.forget(a)
		for range 3 {
			c.open(a.base + "/who")
			c.expect("user:" + user + " bound:true err:<nil>")
		}
	}
}

// TestDeviceBoundExample logs in to the example server with -tls. Its page explains the binding to the owner,
// and to a browser with a copy of the session cookie why nothing is shown.
func TestDeviceBoundExample(t *testing.T) {
	base := launch(t, "../..", "./examples/server", []string{"-tls"})
	conn, err := tls.Dial("tcp", strings.TrimPrefix(base, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	certificate := conn.ConnectionState().PeerCertificates[0]
	conn.Close()
	owner, thief := startBinderFor(t, "", withoutQuota, certificate), startBinderFor(t, "", withoutQuota, certificate)
	owner.logIn(base, "alice", false)
	owner.picture("binding-offered")
	eventually(t, callLimit, func() bool {
		owner.open(base + "/dashboard")
		return strings.Contains(owner.text(), "This session is bound to this browser")
	}, func() string { return "the page says " + owner.text() })
	owner.picture("binding-bound")
	stolen := slices.DeleteFunc(owner.cookies(), func(k *network.Cookie) bool { return k.Name != sessionCookie })
	thief.plant(stolen)
	eventually(t, callLimit, func() bool {
		thief.open(base + "/dashboard")
		return strings.Contains(thief.text(), "bound to another browser")
	}, func() string { return "the thief's page says " + thief.text() })
	if text := thief.text(); strings.Contains(text, "alice") {
		t.Errorf("the thief's page says %s", text)
	}
	thief.picture("binding-copied")
	owner.open(base + "/dashboard")
	owner.expect("Welcome back, alice!")
}

// TestDeviceBoundQuota asks every five seconds for ten minutes, with the shortest period and the quota of
// signatures that users' browsers have: the user is logged in each time. A second browser, to which all
// cookies were copied after a minute, is refused five minutes later. The test runs if E2E_QUOTA is set.
func TestDeviceBoundQuota(t *testing.T) {
	if os.Getenv("E2E_QUOTA") == "" {
		t.Skip("takes ten minutes; set E2E_QUOTA=1")
	}
	a := serveBound(t, session.Options{})
	c := startBinderWith(t, "", "DeviceBoundSessions,"+softwareKeys)
	c.open(a.base + "/login?user=alice")
	c.expect("user:alice")
	thief := startBinderWith(t, "", "DeviceBoundSessions,"+softwareKeys)
	var copied, refused time.Time
	for i := range 120 {
		time.Sleep(5 * time.Second)
		if got := c.js(`fetch("/who").then(r => r.text())`); !strings.HasPrefix(got, "user:alice") {
			t.Errorf("request %d: %s", i, got)
		}
		switch {
		case i < 12:
			continue
		case i == 12:
			copied = time.Now()
			thief.plant(c.cookies())
		}
		isLate := time.Since(copied) >= period
		thief.open(a.base + "/who")
		isIn := strings.Contains(thief.text(), "user:alice")
		if !isIn && refused.IsZero() {
			refused = time.Now()
		}
		if i == 12 && !isIn || isIn && (isLate || !refused.IsZero()) {
			t.Errorf("request %d, %v after the copy: the thief sees %s", i, time.Since(copied), thief.text())
		}
	}
	t.Logf("the copy was worthless after %v", refused.Sub(copied))
	t.Logf("the endpoint had %+v", a.legs)
}

// TestDeviceBoundUnsupported does the same with a browser that binds nothing: log in, by another site too, four
// requests at once, a restart, log out. It has one cookie, whose copy opens the session as without the
// option, and never calls the endpoint.
func TestDeviceBoundUnsupported(t *testing.T) {
	a := serveBound(t, session.Options{Cookie: session.CookieOptions{Persistent: true}})
	other, profile := a.anotherSite(t), t.TempDir()
	c := startChrome(t, profile)
	const want = "user:alice bound:false err:<nil>"
	c.open(a.base + "/login?user=bob")
	c.open(other)
	c.click("#login")
	c.expect("user:")
	c.who(a, want)
	c.open(other)
	c.click("#go")
	c.expect(want)
	got := c.js(`(async () => (await Promise.all([1, 2, 3, 4].map(() => fetch("/who").then(r => r.text())))).join(";"))()`)
	if got != strings.Join([]string{want, want, want, want}, ";") {
		t.Errorf("four requests at once: %s", got)
	}
	c.close()
	c = startChrome(t, profile)
	c.open(a.base + "/who")
	c.expect(want)
	if k := c.only(); k.Name != sessionCookie {
		t.Errorf("the browser stored %+v", k)
	}
	if got := a.steal(t, c.value(sessionCookie)); got != want {
		t.Errorf("a copy of the cookie: %s", got)
	}
	c.open(a.base + "/logout")
	if all := c.cookies(); len(all) > 0 {
		t.Errorf("after the logout: %+v", all)
	}
	if len(a.legs) > 0 {
		t.Errorf("the endpoint had %+v", a.legs)
	}
}
