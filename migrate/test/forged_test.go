package migrate_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/alexedwards/scs/v2"
	"github.com/coatcheck/session/internal/testing/browsers"
)

// TestForgedCookies checks that cookies that the old library has not made cost no store call and
// change nothing.
func TestForgedCookies(t *testing.T) {
	for name, l := range libraries {
		v := newMove(t, l(t), nil)
		v.handle(func(http.ResponseWriter, *http.Request) {}) // does not use the session
		u, _ := url.Parse(v.after)
		for what, value := range map[string]string{
			"a token":          strings.Repeat("A", 43),
			"base64":           strings.Repeat("QUFB", 30),
			"base64 with bars": base64.URLEncoding.EncodeToString([]byte("1|2|" + strings.Repeat("x", 32))),
			"long base64":      strings.Repeat("QUFB", 2000),
			"no base64":        "!",
			"5000 bytes":       strings.Repeat("x", 5000),
		} {
			b := browsers.New(t, nil)
			b.Jar.SetCookies(u, []*http.Cookie{{Name: "old", Value: value}})
			if _, resp := v.get(b, v.after+"/"); resp.StatusCode != 200 || len(resp.Cookies()) > 0 {
				t.Errorf("%s, %s: %s, cookies %v", name, what, resp.Status, resp.Cookies())
			}
			if v.store.calls > 0 {
				t.Errorf("%s, %s: %d store calls, want none", name, what, v.store.calls)
				v.store.calls = 0
			}
		}
	}
}

// A countingStore counts the calls of Find.
type countingStore struct {
	scs.Store
	finds int
}

func (c *countingStore) Find(token string) ([]byte, bool, error) {
	c.finds++
	return c.Store.Find(token)
}

// TestTokensOfAnotherLength checks that only a cookie of the length of a token causes a read of the
// old store.
func TestTokensOfAnotherLength(t *testing.T) {
	for length := range 100 {
		old := scs.New()
		store := &countingStore{Store: old.Store}
		old.Store = store
		v := newMove(t, ofSCS(old), nil)
		u, _ := url.Parse(v.after)
		v.browser.Jar.SetCookies(u, []*http.Cookie{{Name: "old", Value: strings.Repeat("A", length)}})
		v.expect(v.browser, " 0 [] 00:00:00")
		if length == 43 && store.finds != 1 || length != 43 && store.finds > 0 {
			t.Errorf("%d letters: %d reads of the old store", length, store.finds)
		}
	}
}
