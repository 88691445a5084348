package migrate_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"
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
