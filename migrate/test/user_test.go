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

// An email hides itself where it is printed.
type email string

func (email) String() string { return "(an address)" }

// A uuid is an identifier that is no text, and has one.
type uuid [16]byte

func (u uuid) String() string { return hex.EncodeToString(u[:]) }

// A hidden is an identifier whose text hides it, and a masked one's shows its beginning only.
type hidden [8]byte

func (hidden) String() string { return "(an account)" }

type masked [8]byte

func (m masked) String() string { return hex.EncodeToString(m[:2]) + "…" }

// A member has a String method, and that is not its identifier.
type member struct {
	ID   int
	Name string
}

func (m member) String() string { return m.Name }

// Users may be of types of the application's own. A zero value is nobody, and a type that
// hides its text makes no two users one.
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
			t.Errorf("%T %v: in as %q, want %q", c.user, c.user, body, c.want)
		}
	}
}

// The old application's Logout leaves the user in the session and sets another value to
// false. UserFunc asks what that application asked.
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

// Names of gorilla's that are not strings are others than the strings that print alike:
// the user of the session is the value "user". They are reported, unless Ignore has them.
func TestNamesThatAreNotStrings(t *testing.T) {
	gob.Register(contextKey(""))
	for range 10 { // whatever the order of the map
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

// Allow is asked before a user's session is taken over, with the time of the login where
// that is known, and not for a visitor's. If it says no the session ends.
func TestAllow(t *testing.T) {
	for name, isKnown := range map[string]bool{"scs, memory": true, "gorilla, cookie": false, "gorilla, files": false} {
		for _, says := range []bool{true, false} {
			asked := 0
			v := newMove(t, libraries[name](t), func(_ *session.Options, o *migrate.Options) {
				o.Allow = func(user string, created time.Time) bool {
					asked++
					if user != "ann" || created.IsZero() == isKnown || created.After(time.Now()) {
						t.Errorf("%s: asked for %q, who logged in at %v", name, user, created)
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
			if n := v.take.Count(); asked > 2 || (n == 1) != says {
				t.Errorf("%s: Allow was asked %d times, %d takeovers", name, asked, n)
			}
			if got := v.cookies(); !says && len(got) > 0 {
				t.Errorf("%s: the browser has %q", name, got)
			}
			v.expect(copied, want)
			if got, _ := v.get(again, v.before+"/"); got != "<nil>" && !v.library.stateless {
				t.Errorf("%s: in the old application it is still %q", name, got)
			}
			asked = 0
			v.get(v.browser, v.after+"/logout")
			v.get(v.browser, v.before+"/login")
			v.expect(v.browser, " 7 [{tea 2}] 03:04:05")
			if asked > 0 {
				t.Errorf("%s: Allow was asked for a visitor", name)
			}
		}
	}
}

// An account is disabled while its session is being taken over. The session ends all the
// same: a RevokeAll may have looked for the user's sessions just before it was stored.
func TestAllowChangesItsMind(t *testing.T) {
	for _, name := range []string{"scs, memory", "gorilla, cookie"} {
		asked := 0
		v := newMove(t, libraries[name](t), func(_ *session.Options, o *migrate.Options) {
			o.Allow = func(string, time.Time) bool { asked++; return asked == 1 }
		})
		v.get(v.browser, v.before+"/login?user=ann")
		v.expect(v.browser, " 0 [] 00:00:00")
		if list, err := v.m.List(t.Context(), "ann"); err != nil || len(list) > 0 || asked != 2 || v.take.Count() > 0 || len(v.cookies()) > 0 {
			t.Errorf("%s: %d sessions, %v; Allow was asked %d times; %d takeovers, cookies %q", name, len(list), err, asked, v.take.Count(), v.cookies())
		}
		v.expectNothingStored()
	}
}
