package migrate_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/alexedwards/scs/v2"
)

// Cookies that the old library has not made cost no call of the store, and change
// nothing, however they are made.
func TestForgedCookies(t *testing.T) {
	for name, l := range libraries {
		v := newMove(t, l(t), nil)
		v.handle(func(http.ResponseWriter, *http.Request) {}) // does not use the session
		u, _ := url.Parse(v.after)
		for what, value := range map[string]string{
			"a token":            strings.Repeat("A", 43),
			"base64":             strings.Repeat("QUFB", 30),
			"base64 with bars":   base64.URLEncoding.EncodeToString([]byte("1|2|" + strings.Repeat("x", 32))),
			"long base64":        strings.Repeat("QUFB", 2000),
			"no base64":          "!",
			"longer than a page": strings.Repeat("x", 5000),
		} {
			b := newBrowser()
			b.Jar.SetCookies(u, []*http.Cookie{{Name: "old", Value: value}})
			if _, resp := v.get(b, v.after+"/"); resp.StatusCode != 200 || len(resp.Cookies()) > 0 {
				t.Errorf("%s, %s: %s, cookies %v", name, what, resp.Status, resp.Cookies())
			}
			if v.store.calls > 0 {
				t.Errorf("%s, %s: %d calls of the store", name, what, v.store.calls)
				v.store.calls = 0
			}
		}
	}
}

// A countingStore counts what scs looks for.
type countingStore struct {
	scs.Store
	finds int
}

func (c *countingStore) Find(token string) ([]byte, bool, error) {
	c.finds++
	return c.Store.Find(token)
}

// The old store is asked for what can be one of its tokens, and for nothing else.
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
			t.Errorf("%d letters: the old store was asked %d times", length, store.finds)
		}
	}
}
