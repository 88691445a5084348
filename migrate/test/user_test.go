package migrate_test

import (
	"encoding/gob"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/coatcheck/session"
	"github.com/coatcheck/session/migrate"
	"github.com/gorilla/sessions"
)

type userID int

// An email is a type whose String method hides the value.
type email string

func (email) String() string { return "(an address)" }

// A uuid is an identifier that is not text and has a String method.
type uuid [16]byte

func (u uuid) String() string { return hex.EncodeToString(u[:]) }

// A hidden is an identifier whose text hides the value. The text of a masked shows its first two
// bytes only.
type hidden [8]byte

func (hidden) String() string { return "(an account)" }

type masked [8]byte

func (m masked) String() string { return hex.EncodeToString(m[:2]) + "…" }

// A member has a String method that does not return its identifier.
type member struct {
	ID   int
	Name string
}

func (m member) String() string { return m.Name }

// TestUserOfAType checks users of types that the application defines. A zero value means that no
// user is logged in, and a type that hides its text never makes two users one.
func TestUserOfAType(t *testing.T) {
	for _, v := range []any{userID(0), email(""), uuid{}, member{}, hidden{}, masked{}} {
		gob.Register(v)
	}
	for _, c := range []struct {
		user any
		want string
	}{
		{"ann", "ann"}, {"", ""},
		{userID(7), "7"}, {userID(0), ""}, {-7, "-7"}, {uint8(7), "7"}, {7.0, "7"},
		{email("ann@example.com"), "ann@example.com"}, {email("bob@example.com"), "bob@example.com"},
		{uuid{1, 2}, "01020000000000000000000000000000"}, {uuid{}, ""},
		{hidden{1}, ""}, {hidden{2}, ""}, {masked{1, 2, 3}, ""}, {masked{1, 2, 4}, ""},
		{member{7, "ann"}, ""}, {member{8, "ann"}, ""},
	} {
		a := newApps(t)
		_, h := a.app(a.new)
		if body, _ := do(h, "/", a.login(c.user)); body != c.want {
			t.Errorf("%T %v: logged in as %q, want %q", c.user, c.user, body, c.want)
		}
	}
}

// TestUserFunc checks UserFunc with an old application whose Logout keeps the user in the session
// and sets another value to false.
func TestUserFunc(t *testing.T) {
	gob.Register(member{})
	for name, c := range map[string]struct {
		values map[string]any
		want   string
	}{
		"logged in":  {map[string]any{"authenticated": true, "account": member{7, "ann"}}, "7"},
		"logged out": {map[string]any{"authenticated": false, "account": member{7, "ann"}}, ""},
		"a visitor":  {nil, ""},
	} {
		log := logged(t)
		v := newMove(t, ofSCSWith(scs.New(), c.values), func(_ *session.Options, o *migrate.Options) {
			o.User, o.Ignore = "", []string{"authenticated", "account", "user"}
			o.UserFunc = func(old map[string]any) (string, bool) {
				is, _ := old["authenticated"].(bool)
				m, _ := old["account"].(member)
				return fmt.Sprint(m.ID), is
			}
		})
		v.get(v.browser, v.before+"/login?user=x")
		v.expect(v.browser, c.want+" 0 [] 00:00:00")
		if log.Len() > 0 {
			t.Errorf("%s: the log is %q", name, log)
		}
	}
}

type contextKey string

// TestNamesThatAreNotStrings checks that names of gorilla/sessions that are not strings are
// distinguished from strings that print alike: the user of the session is the value "user". The
// other names are reported, unless Ignore lists them.
func TestNamesThatAreNotStrings(t *testing.T) {
	gob.Register(contextKey(""))
	for range 10 { // the order of the map is random
		for _, ignores := range []bool{false, true} {
			log := logged(t)
			store := sessions.NewCookieStore(cookieKey)
			v := newMove(t, ofGorilla(store), func(_ *session.Options, o *migrate.Options) {
				o.Values = []migrate.Value{migrate.As("1", visits)}
				if ignores {
					o.Ignore = []string{"migrate_test.contextKey(user)", "int(1)"}
				}
			})
			r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
			s, _ := store.Get(r, "old")
			s.Values["user"], s.Values[contextKey("user")] = "ann", "mallory"
			s.Values["1"], s.Values[1] = 7, 8
			if err := s.Save(r, w); err != nil {
				t.Fatal(err)
			}
			u, _ := url.Parse(v.after)
			v.browser.Jar.SetCookies(u, []*http.Cookie{{Name: "old", Value: w.Result().Cookies()[0].Value}})
			v.expect(v.browser, "ann 7 [] 00:00:00")
			if n := strings.Count(log.String(), "not taken over"); n != 2 && !ignores || n != 0 && ignores || strings.Contains(log.String(), "mallory") {
				t.Errorf("ignored %v: the log is %q", ignores, log)
			}
		}
	}
}

// TestAllow checks that Allow is called before the session of a user is taken over, with the time
// of the login if it is known, and not for an anonymous session. If it returns false, the session
// ends.
func TestAllow(t *testing.T) {
	for name, isKnown := range map[string]bool{"scs, memory": true, "gorilla, cookie": false, "gorilla, files": false} {
		for _, says := range []bool{true, false} {
			calls := 0
			v := newMove(t, libraries[name](t), func(_ *session.Options, o *migrate.Options) {
				o.Allow = func(user string, created time.Time) bool {
					calls++
					if user != "ann" || created.IsZero() == isKnown || created.After(time.Now()) {
						t.Errorf("%s: Allow got the user %q and the login at %v", name, user, created)
					}
					return says
				}
			})
			v.get(v.browser, v.before+"/login?user=ann")
			copied, again := v.copy(), v.copy()
			want, ended := carried, " 0 [] 00:00:00"
			if !says {
				want = ended
			}
			v.expect(v.browser, want)
			v.expect(v.browser, want)
			if n := v.take.Count(); calls > 2 || (n == 1) != says {
				t.Errorf("%s: %d calls of Allow, %d takeovers", name, calls, n)
			}
			if got := v.cookies(); !says && len(got) > 0 {
				t.Errorf("%s: the browser has %q", name, got)
			}
			v.expect(copied, want)
			if got, _ := v.get(again, v.before+"/"); got != "<nil>" && !v.library.stateless {
				t.Errorf("%s: the old application still has the user %q", name, got)
			}
			calls = 0
			v.get(v.browser, v.after+"/logout")
			v.get(v.browser, v.before+"/login")
			v.expect(v.browser, " 7 [{tea 2}] 03:04:05")
			if calls > 0 {
				t.Errorf("%s: Allow was called for an anonymous session", name)
			}
		}
	}
}

// TestAllowChangesItsMind checks that the session ends if the account is disabled during its
// takeover: a RevokeAll may have listed the sessions of the user just before the new one was
// stored.
func TestAllowChangesItsMind(t *testing.T) {
	for _, name := range []string{"scs, memory", "gorilla, cookie"} {
		calls := 0
		v := newMove(t, libraries[name](t), func(_ *session.Options, o *migrate.Options) {
			o.Allow = func(string, time.Time) bool { calls++; return calls == 1 }
		})
		v.get(v.browser, v.before+"/login?user=ann")
		v.expect(v.browser, " 0 [] 00:00:00")
		if list, err := v.m.List(t.Context(), "ann"); err != nil || len(list) > 0 || calls != 2 || v.take.Count() > 0 || len(v.cookies()) > 0 {
			t.Errorf("%s: %d sessions, %v; %d calls of Allow; %d takeovers, cookies %q", name, len(list), err, calls, v.take.Count(), v.cookies())
		}
		v.expectNothingStored()
	}
}
