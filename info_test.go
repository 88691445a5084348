package session_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

// TestInfo checks that an Info has the values that a request sees, at the time of List.
func TestInfo(t *testing.T) {
	for what, remember := range map[string]bool{"": false, "remembered": true} {
		t.Run(what, func(t *testing.T) {
			atDesk(t, session.Options{}, func(d *desk) {
				b := d.browser()
				time.Sleep(10 * minute)
				if d.do(b, func(s *session.Session) { visits.Set(s, 7) }); remember {
					d.do(b, func(s *session.Session) { s.Remember(day) })
				}
				i := d.only()
				d.do(b, func(s *session.Session) {
					if i.ID != s.ID() || i.User != "alice" || !i.Created.Equal(s.Created()) || !i.Created.Equal(s.AuthTime()) ||
						!i.LastSeen.Equal(s.LastSeen()) || !i.Expires.Equal(s.Expires()) || i.Remembered != remember || s.Remembered() != remember {
						t.Errorf("listed is %v", i)
					}
					s.Clear()
				})
				if got, ok := name.Of(i); got != "before" || !ok {
					t.Errorf("the name is %q, %v", got, ok)
				}
				if got, ok := visits.Of(i); got != 7 || !ok {
					t.Errorf("the number of visits is %d, %v", got, ok)
				}
				if got, ok := session.NewKey[bool]("name").Of(i); got || ok {
					t.Errorf("a value of another type is %v, %v", got, ok)
				}
				if got, ok := session.NewKey[string]("absent").Of(i); got != "" || ok {
					t.Errorf("an absent value is %q, %v", got, ok)
				}
				if got, ok := name.Of(d.only()); got != "" || ok {
					t.Errorf("after Clear: %q, %v", got, ok)
				}
			})
		})
	}
	if got, ok := name.Of(session.Info{ID: "an id"}); got != "" || ok {
		t.Errorf("an Info that no List returned has the value %q, %v", got, ok)
	}
}

// TestInfoIsPrintedWithoutValues: promise 10. A printed Info contains no values, with any verb
// and inside other values.
func TestInfoIsPrintedWithoutValues(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		d.browser()
		if err := d.edit(func(s *session.Session) { name.Set(s, "nonce") }); err != nil {
			t.Fatal(err)
		}
		i := d.only()
		type holder struct {
			exported struct{ Info session.Info }
			info     session.Info
			pointer  *session.Info
		}
		h := holder{info: i, pointer: &i}
		h.exported.Info = i
		secrets := []string{"nonce", fmt.Sprintf("%x", "nonce"), fmt.Sprintf("%X", "nonce"), strings.Trim(fmt.Sprint([]byte("nonce")), "[]")}
		expect := func(how, text string, isWhole bool) {
			t.Helper()
			for _, secret := range secrets {
				if strings.Contains(text, secret) {
					t.Errorf("%s contains the values: %s", how, text)
				}
			}
			if isWhole && (!strings.Contains(text, i.ID) || !strings.Contains(text, "alice")) {
				t.Errorf("%s lacks the fields: %s", how, text)
			}
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "% x", "%o", "%10.3v"} {
			for what, value := range map[string]any{"Info": i, "*Info": &i, "[]Info": []session.Info{i}, "map": map[string]session.Info{"": i}} {
				expect(verb+" of "+what, fmt.Sprintf(verb, value), verb == "%v" || verb == "%+v" || verb == "%#v")
			}
			expect(verb+" in a struct", fmt.Sprintf(verb, h), false)
			expect(verb+" in a pointer to a struct", fmt.Sprintf(verb, &h), false)
		}
		var log bytes.Buffer
		for what, handler := range map[string]slog.Handler{"slog as text": slog.NewTextHandler(&log, nil), "slog as JSON": slog.NewJSONHandler(&log, nil)} {
			log.Reset()
			slog.New(handler).Info("", "info", i, "all", []session.Info{i}, "pointer", &i, "holder", h)
			expect(what, log.String(), true)
		}
		encoded, err := json.Marshal(i)
		if err != nil {
			t.Fatal(err)
		}
		expect("JSON", string(encoded), true)
		if text := fmt.Sprintf("%+v", i); !strings.HasPrefix(text, "session.Info[ID="+i.ID+" User=alice ") || strings.Contains(text, "0x") {
			t.Errorf("an Info prints as %s", text)
		}
		log.Reset()
		slog.New(slog.NewTextHandler(&log, nil)).Info("", "info", i)
		if !strings.Contains(log.String(), " info.ID="+i.ID+" info.User=alice ") {
			t.Errorf("slog prints %s", log.String())
		}
	})
}
