package migrate_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/alexedwards/scs/v2"
	"github.com/coatcheck/session"
	"github.com/gorilla/sessions"
)

// TestClaimsInAFullMemoryStore checks that a copy of the old cookie gives no access after the
// session was taken over and logged out, even if anonymous sessions have filled the MemoryStore
// since.
func TestClaimsInAFullMemoryStore(t *testing.T) {
	store := session.NewMemoryStore(&session.MemoryOptions{MaxBytes: 64 << 10})
	a := &apps{t: t, old: sessions.NewCookieStore(cookieKey), new: store}
	m, h := a.app(store)
	cookie := a.login("ann")
	body, ours := do(h, "/", cookie)
	if body != "ann" {
		t.Fatalf("the takeover: logged in as %q, want ann", body)
	}
	do(h, "/logout", ours)
	key := session.NewKey[string]("x")
	crawl := m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { key.Set(session.From(r.Context()), "x") }))
	for range 2000 {
		crawl.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	}
	if body, _ := do(h, "/", cookie); body != "" {
		t.Errorf("a copy of the old cookie: logged in as %q, want anonymous", body)
	}
}

// TestLostClaim checks that the old store keeps no values of a session that was taken over: even if
// the record of the takeover is lost, the session is not taken over twice.
func TestLostClaim(t *testing.T) {
	v := newMove(t, ofSCS(scs.New()), nil)
	v.get(v.browser, v.before+"/login?user=ann")
	copied := v.copy()
	v.expect(v.browser, carried)
	v.get(v.browser, v.after+"/logout")
	for _, id := range v.store.ids() {
		if err := v.store.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	v.expect(copied, " 0 [] 00:00:00")
	if n := v.take.Count(); n != 1 {
		t.Errorf("%d takeovers, want 1", n)
	}
}

// TestClaimsAreNotOnline checks that the users of the records of takeovers do not appear online.
func TestClaimsAreNotOnline(t *testing.T) {
	v := newMove(t, ofSCS(scs.New()), nil)
	v.get(v.browser, v.before+"/login?user=ann")
	v.expect(v.browser, carried)
	for _, id := range v.store.ids() {
		r, err := v.store.Store.Load(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if r.User != "ann" && r.LastSeen.Year() > 1970 {
			t.Errorf("%q was seen at %v", r.User, r.LastSeen)
		}
	}
}
