package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// webDriver is a browser that is driven by the commands of the W3C's WebDriver, under the names
// that Firefox uses for them.
type webDriver struct {
	t  testing.TB
	do func(command string, params any) (json.RawMessage, error)
}

type params = map[string]any

// capabilities are those of a new session: it accepts the certificate of httptest, and has
// limits in milliseconds.
var capabilities = params{
	"acceptInsecureCerts": true,
	"timeouts": params{
		"script":   callLimit.Milliseconds() / 2,
		"pageLoad": callLimit.Milliseconds() / 2,
		"implicit": callLimit.Milliseconds() / 2, // limit for an element to appear
	},
}

func (b *webDriver) must(command string, p params) json.RawMessage {
	b.t.Helper()
	v, err := b.do(command, p)
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

func (b *webDriver) open(url string) {
	b.t.Helper()
	b.must("WebDriver:Navigate", params{"url": url})
}

func (b *webDriver) back() {
	b.t.Helper()
	b.must("WebDriver:Back", params{})
}

func (b *webDriver) click(selector string) {
	b.t.Helper()
	var element map[string]string // has one member, whose name is a constant of the standard
	if err := json.Unmarshal(b.must("WebDriver:FindElement", params{"using": "css selector", "value": selector}), &element); err != nil {
		b.t.Fatal(err)
	}
	for _, id := range element {
		b.must("WebDriver:ElementClick", params{"id": id})
	}
}

func (b *webDriver) tryJS(script string) (s string, err error) {
	v, err := b.do("WebDriver:ExecuteAsyncScript", params{"args": []any{}, "script": fmt.Sprintf(
		`const done = arguments[0]; (async () => (%s))().then(v => done(String(v)), e => done("error: " + e))`, script)})
	if err == nil {
		err = json.Unmarshal(v, &s)
	}
	return s, err
}

func (b *webDriver) js(script string) string {
	b.t.Helper()
	s, err := b.tryJS(script)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// text is also empty during a navigation, when no script can run.
func (b *webDriver) text() string {
	s, _ := b.tryJS(`document.body ? document.body.innerText : ""`)
	return strings.Join(strings.Fields(s), " ")
}

func (b *webDriver) expect(want string) {
	b.t.Helper()
	await(b.t, b, want)
}

func (b *webDriver) pageCookies() (all []cookieFact) {
	b.t.Helper()
	if err := json.Unmarshal(b.must("WebDriver:GetCookies", params{}), &all); err != nil {
		b.t.Fatal(err)
	}
	return all
}
