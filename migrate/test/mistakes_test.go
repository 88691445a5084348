package migrate_test

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/coatcheck/session"
	"github.com/coatcheck/session/migrate"
	"github.com/gorilla/securecookie"
	"github.com/gorilla/sessions"
)

// logged returns a buffer that receives the log until the test ends.
func logged(t *testing.T) *bytes.Buffer {
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	return &log
}

// ofSCSWith returns an scs application whose login sets these values.
func ofSCSWith(m *scs.SessionManager, values map[string]any) library {
	l := ofSCS(m)
	l.login = func(_ http.ResponseWriter, r *http.Request, user any) {
		m.Put(r.Context(), "user", user)
		for name, v := range values {
			m.Put(r.Context(), name, v)
		}
	}
	return l
}

// TestTooLarge checks that a session that exceeds Options.MaxDataSize is taken over without its
// largest values, which are reported.
func TestTooLarge(t *testing.T) {
	note, picture, file := session.NewKey[string]("note"), session.NewKey[string]("picture"), session.NewKey[string]("file")
	log := logged(t)
	v := newMove(t, ofSCSWith(scs.New(), map[string]any{
		"note": "tea", "picture": strings.Repeat("x", 20<<10), "file": strings.Repeat("y", 63<<10), "visits": 7,
	}), func(_ *session.Options, o *migrate.Options) {
		o.Values = append(o.Values, migrate.As("file", file), migrate.As("note", note), migrate.As("picture", picture))
	})
	v.handle(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		fmt.Fprintf(w, "%s %d %s %d %d", s.User(), visits.Get(s), note.Get(s), len(picture.Get(s)), len(file.Get(s)))
	})
	v.get(v.browser, v.before+"/login?user=ann")
	v.expect(v.browser, "ann 7 tea 20480 0")
	v.expect(v.browser, "ann 7 tea 20480 0")
	if strings.Count(log.String(), "level=") != 1 || !strings.Contains(log.String(), "name=file") || !strings.Contains(log.String(), "MaxDataSize") {
		t.Errorf("the log is %q", log)
	}
}

type person struct{ Name string }

// TestUserWithoutAName checks an old session whose user has no text. No request has the session, no
// request fails, the reason is logged once, and the old session stays for a corrected version of
// the application.
func TestUserWithoutAName(t *testing.T) {
	gob.Register(person{})
	log := logged(t)
	for _, user := range []any{person{"ann"}, true, []byte("ann"), 1.5, strings.Repeat("x", 1025)} {
		old := scs.New()
		log.Reset()
		v := newMove(t, ofSCSWith(old, map[string]any{"visits": 7, "user": user}), nil)
		v.get(v.browser, v.before+"/login?user=ann")
		for range 2 {
			if resp := v.expect(v.browser, " 0 [] 00:00:00"); len(resp.Cookies()) > 0 {
				t.Errorf("%T: cookies %v", user, resp.Cookies())
			}
		}
		if n := strings.Count(log.String(), "level="); n != 1 {
			t.Errorf("%T: %d lines are logged: %s", user, n, log)
		}
		if got, _ := v.get(v.browser, v.before+"/"); got != fmt.Sprint(user) {
			t.Errorf("%T: the user of the old session is %q, want %v", user, got, user)
		}
		v.expectNothingStored()
	}
}

// TestFunctionsThatPanic checks functions of the application that panic for an old session, such as
// an anonymous one. After a panic of UserFunc the session is not taken over; after a panic of a
// conversion it is taken over without that value. No request fails.
func TestFunctionsThatPanic(t *testing.T) {
	number := session.NewKey[int]("number")
	for name, c := range map[string]struct {
		adapt func(*session.Options, *migrate.Options)
		want  string
		log   string
	}{
		"UserFunc": {func(_ *session.Options, o *migrate.Options) {
			o.User, o.UserFunc = "", func(old map[string]any) (string, bool) { return old["user_id"].(string), true }
		}, " 0 [] 00:00:00", "Options.UserFunc panicked: interface conversion"},
		"Convert": {func(_ *session.Options, o *migrate.Options) {
			o.Values = append(o.Values, migrate.Convert("number", number, func(old any) (int, error) { return old.(int), nil }))
		}, "ann 7 [] 00:00:00", "the conversion panicked: interface conversion"},
	} {
		log := logged(t)
		v := newMove(t, ofSCSWith(scs.New(), map[string]any{"visits": 7, "number": "7"}), c.adapt)
		v.get(v.browser, v.before+"/login?user=ann")
		for range 2 {
			v.expect(v.browser, c.want)
		}
		if !strings.Contains(log.String(), c.log) {
			t.Errorf("%s: the log is %s", name, log)
		}
	}
}

func (v *move) expectNothingStored() {
	v.t.Helper()
	time.Sleep(2 * time.Millisecond) // a released claim expires after 1 ms
	for _, id := range v.store.ids() {
		if r, err := v.store.Store.Load(v.t.Context(), id); err == nil {
			v.t.Errorf("the record %s is left: %s", r.ID, r.Data)
		}
	}
}

// brokenCodec encodes values that it cannot decode, as gob does if the deployed program no longer
// registers a type.
type brokenCodec struct{ scs.GobCodec }

func (brokenCodec) Decode([]byte) (time.Time, map[string]any, error) {
	return time.Time{}, nil, errors.New("gob: name not registered for interface")
}

func (brokenCodec) Serialize(v any) ([]byte, error) { return securecookie.GobEncoder{}.Serialize(v) }
func (brokenCodec) Deserialize([]byte, any) error {
	return errors.New("gob: name not registered for interface")
}

// gobStore is a store that encodes values itself, as stores over Redis do.
type gobStore struct{ sessions.Store }

func (g gobStore) New(r *http.Request, name string) (*sessions.Session, error) {
	s, err := g.Store.New(r, name)
	if err == nil && !s.IsNew {
		s.IsNew, err = true, errors.New("gob: name not registered for interface")
	}
	return s, err
}

// TestUndecodable checks an old session that no longer decodes. No request has it, the reason is
// logged once, and the old session stays.
func TestUndecodable(t *testing.T) {
	log := logged(t)
	m, cookies, inner := scs.New(), sessions.NewCookieStore(cookieKey), sessions.NewCookieStore(cookieKey)
	folder := t.TempDir()
	files := sessions.NewFilesystemStore(folder, cookieKey)
	own := ofGorilla(inner)
	own.old = migrate.Gorilla(gobStore{inner}, "old")
	for name, c := range map[string]struct {
		l      library
		breaks func()
	}{
		"scs":              {ofSCS(m), func() { m.Codec = brokenCodec{} }},
		"gorilla, cookie":  {ofGorilla(cookies), func() { cookies.Codecs[0].(*securecookie.SecureCookie).SetSerializer(brokenCodec{}) }},
		"gorilla, its own": {own, func() {}},
		"gorilla, files": {ofGorilla(files), func() {
			all, _ := filepath.Glob(filepath.Join(folder, "session_*"))
			for _, name := range all {
				if err := os.WriteFile(name, []byte("not what it was"), 0o600); err != nil {
					t.Error(err)
				}
			}
		}},
	} {
		log.Reset()
		v := newMove(t, c.l, nil)
		v.get(v.browser, v.before+"/login?user=ann")
		c.breaks()
		for range 2 {
			if resp := v.expect(v.browser, " 0 [] 00:00:00"); len(resp.Cookies()) > 0 {
				t.Errorf("%s: cookies %v", name, resp.Cookies())
			}
		}
		if n := strings.Count(log.String(), "level="); n != 1 {
			t.Errorf("%s: %d lines are logged: %s", name, n, log)
		}
		if n := v.store.calls; n > 0 {
			t.Errorf("%s: %d store calls, want none", name, n)
		}
	}
}

// TestFailingOldStore checks that a failure of the old store is answered with 503 and changes no
// session.
func TestFailingOldStore(t *testing.T) {
	log := logged(t)
	old := scs.New()
	v := newMove(t, ofSCS(old), nil)
	v.get(v.browser, v.before+"/login?user=ann")
	works := old.Store
	old.Store = failingStore{works}
	if got, resp := v.get(v.browser, v.after+"/"); resp.StatusCode != 503 || len(resp.Cookies()) > 0 {
		t.Errorf("%s %q", resp.Status, got)
	}
	old.Store = works
	v.expect(v.browser, carried)
	if !strings.Contains(log.String(), "down") {
		t.Errorf("the log is %q", log)
	}
}

type failingStore struct{ scs.Store }

func (failingStore) Find(string) ([]byte, bool, error) { return nil, false, errors.New("down") }
