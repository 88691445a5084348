package body_test

import (
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session/internal/body"
)

// TestDevice checks that a binding is written and read again, with and without its optional
// times, and that anything else is no binding.
func TestDevice(t *testing.T) {
	full := body.Device{From: at(10 * time.Second), Key: "ES256.AAAA", Made: began, Used: at(1e6), At: at(2e6), Old: at(3e6)}
	for _, d := range []body.Device{full, {Key: "RS256.AAAA", Made: began}, {Key: "ES256.AAAA", From: began}} {
		b := parse(t, begin(t), began)
		b.Bind(body.Device{Key: "ES256.old"})
		b.Bind(d)
		data := string(b.Bytes())
		if got := parse(t, data, began).Device(); got != d {
			t.Errorf("got %+v, want %+v", got, d)
		}
		if got := body.BoundFrom([]byte(data)); got != d.From {
			t.Errorf("bound from %v, want %v", got, d.From)
		}
		if !body.IsCurrent([]byte(data), key('a')) {
			t.Errorf("the key is not the first member: %s", data)
		}
	}
	for _, data := range []string{
		begin(t),
		strings.Replace(begin(t), `"name"`, `"session.device":null,"name"`, 1),
		strings.Replace(begin(t), `"name"`, `"session.device":[1],"name"`, 1),
		strings.Replace(begin(t), `"name"`, `"session.device":{"from":"x","key":5},"name"`, 1),
	} {
		if d := parse(t, data, began).Device(); d != (body.Device{}) {
			t.Errorf("%s is bound: %+v", data, d)
		}
		if from := body.BoundFrom([]byte(data)); !from.IsZero() {
			t.Errorf("%s is bound from %v", data, from)
		}
	}
}

// TestDeviceStays checks that neither Clear nor a renewal removes a binding, and that a request
// that sees the session from before a renewal does not see it as a value.
func TestDeviceStays(t *testing.T) {
	b := parse(t, begin(t), began)
	d := body.Device{Key: "ES256.AAAA", From: began}
	b.Bind(d)
	if err := b.Apply(body.Changes{{Call: "Clear"}}); err != nil {
		t.Fatal(err)
	}
	b.RenewAutomatically(key('b'), key('a'), at(time.Minute))
	b.RenewExplicitly(key('c'), true, time.Minute, began, at(2*time.Minute))
	if got := parse(t, string(b.Bytes()), at(2*time.Minute)).Device(); got != d {
		t.Errorf("got %+v, want %+v", got, d)
	}
	frozen, ok := body.FrozenFor(b.Bytes(), key('b'), at(2*time.Minute))
	if !ok || strings.Contains(string(frozen.Values), "device") {
		t.Errorf("the session from before the renewal is %s, %v", frozen.Values, ok)
	}
}
