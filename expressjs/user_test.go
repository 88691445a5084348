package expressjs_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
	"github.com/coatcheck/session/sessiontest"
)

// TestUser checks that the user is written to, and read from, the member of Passport or the member
// that the options name.
func TestUser(t *testing.T) {
	for name, c := range map[string]struct {
		o              expressjs.Options
		member, theirs string
	}{
		"Passport":         {expressjs.Options{Passport: true}, `"passport":{"user":"7"}`, `"passport":{"user":7}`},
		"Passport, number": {expressjs.Options{Passport: true, NumericUser: true}, `"passport":{"user":7}`, `"passport":{"user":"7"}`},
		"member":           {expressjs.Options{UserMember: "userId"}, `"userId":"7"`, `"userId":7`},
		"member, number":   {expressjs.Options{UserMember: "userId", NumericUser: true}, `"userId":7`, `"userId":"7"`},
	} {
		onShelves(t, c.o, func(t *testing.T, s *shelf) {
			m := service(t, s.store, nil)
			var id string
			r, _ := http.NewRequest("GET", "https://example.test/", nil)
			sessiontest.Do(t, m, r, func(s *session.Session) { s.Login("7") })
			sessiontest.Do(t, m, r, func(s *session.Session) {
				if id = s.ID(); s.User() != "7" || time.Since(s.AuthTime()) > time.Minute {
					t.Errorf("%s: %q", name, s.User())
				}
			})
			if got, _ := s.get(id); !strings.Contains(got, c.member) {
				t.Errorf("%s: %s", name, got)
			}
			// A user who has logged in at Express, and has not used Go yet.
			record := `{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},` + c.theirs + `}`
			s.put(sid, record, time.Hour)
			for range 2 {
				in(t, m, sid, func(s *session.Session) {
					if s.User() != "7" || !s.AuthTime().IsZero() {
						t.Errorf("%s: %q, %v", name, s.User(), s.AuthTime())
					}
				})
			}
			if all, err := m.List(t.Context(), "7"); err != nil || len(all) != 2 {
				t.Errorf("%s: %d sessions, %v", name, len(all), err)
			}
			in(t, m, sid, func(s *session.Session) { session.NewKey[int]("x").Set(s, 1) })
			if got, _ := s.get(sid); !strings.Contains(got, c.theirs) {
				t.Errorf("%s: %s", name, got)
			}
			// Express changes the user of the session, and then logs the user out.
			s.put(sid, strings.Replace(record, "7", "8", 1), time.Hour)
			in(t, m, sid, func(s *session.Session) {
				if s.User() != "8" {
					t.Errorf("%s: %q", name, s.User())
				}
			})
			s.put(sid, strings.Replace(record, c.theirs, `"x":1`, 1), time.Hour)
			in(t, m, sid, func(s *session.Session) {
				if s.User() != "" {
					t.Errorf("%s: %q", name, s.User())
				}
			})
			if err := m.RevokeAll(t.Context(), "7"); err != nil {
				t.Error(err)
			}
			if got, _ := s.get(id); got != "" {
				t.Errorf("%s: after RevokeAll the record is %s", name, got)
			}
		})
	}
}

// TestAnotherUserAtExpress checks that a change by a request of one user does not reach the session
// of another user, if Express has changed the user and kept the id in the meantime.
func TestAnotherUserAtExpress(t *testing.T) {
	onShelves(t, expressjs.Options{UserMember: "userId"}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		for _, now := range []string{strings.Replace(annAtExpress, "ann", "bob", 1), strings.Replace(annAtExpress, `"userId":"ann",`, "", 1)} {
			s.put(sid, annAtExpress, time.Hour)
			in(t, m, sid, func(is *session.Session) {
				if is.User() != "ann" {
					t.Errorf("the user is %q, want ann", is.User())
				}
				s.put(sid, now, time.Hour)
				session.NewKey[string]("address").Set(is, "ann's street")
				if err := is.Save(context.Background()); !errors.Is(err, session.ErrReplaced) {
					t.Errorf("Save: %v", err)
				}
			})
			if got, _ := s.get(sid); got != now {
				t.Errorf("the record %s becomes %s", now, got)
			}
		}
	})
}

// TestPassportKeepsItsMembers checks that a Login keeps the other members of passport.
func TestPassportKeepsItsMembers(t *testing.T) {
	onShelves(t, expressjs.Options{Passport: true}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		s.put(sid, `{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"passport":{"to":"/cart"}}`, time.Hour)
		in(t, m, sid, func(s *session.Session) { s.Login("7") })
		all, err := s.store.List(t.Context(), "7")
		if err != nil || len(all) != 1 {
			t.Fatal(len(all), err)
		}
		if got, _ := s.get(all[0].ID); !strings.HasSuffix(got, `"passport":{"to":"/cart","user":"7"}}`) {
			t.Error(got)
		}
	})
}

// Beginnings of records, without values: of an Express app without options, and of Go.
const (
	bare  = `{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}`
	begun = `{"cookie":{"originalMaxAge":null,"expires":null,"secure":true,"httpOnly":true,"path":"/","sameSite":"lax"}`
)

// TestUserPath checks that a Login sets the member at a path with dots, and keeps the other members
// of the object.
func TestUserPath(t *testing.T) {
	for path, records := range map[string][]string{
		"user.id":          {`,"user":{"name":"Ann","id":"7","x":[1]}}`, `,"user":{"name":"Ann","x":[1]}}`, `,"user":{"name":"Ann","id":"9","x":[1]}}`, `,"user":{"id":"9"}}`},
		"passport.user.id": {`,"passport":{"user":{"name":"Ann","id":"7"},"to":"/"}}`, `,"passport":{"user":{"name":"Ann"},"to":"/"}}`, `,"passport":{"user":{"name":"Ann","id":"9"},"to":"/"}}`, `,"passport":{"user":{"id":"9"}}}`},
	} {
		known, none, want, alone := records[0], records[1], records[2], records[3]
		onShelves(t, expressjs.Options{UserMember: path}, func(t *testing.T, s *shelf) {
			m := service(t, s.store, nil)
			for _, spelled := range []string{known, strings.Replace(known, `"7"`, `7`, 1)} {
				s.put(sid, bare+spelled, time.Hour)
				in(t, m, sid, func(s *session.Session) {
					if s.User() != "7" {
						t.Errorf("%s: the user in %s is %q", path, spelled, s.User())
					}
					session.NewKey[int]("y").Set(s, 1)
				})
				if got, _ := s.get(sid); got != bare+strings.TrimSuffix(spelled, "}")+`,"y":1}` {
					t.Errorf("%s: %s becomes %s", path, spelled, got)
				}
			}
			name := strings.Split(path, ".")[0]
			for before, want := range map[string]string{
				none:                                   want,
				`}`:                                    alone,
				`,"` + name + `":null}`:                alone,
				`,"` + name + `":"text"}`:              alone,
				strings.Replace(known, `"7"`, `""`, 1): want,
			} {
				s.put(sid, bare+before, time.Hour)
				in(t, m, sid, func(s *session.Session) {
					if s.User() != "" {
						t.Errorf("%s: the user in %s is %q", path, before, s.User())
					}
					s.Login("9")
				})
				list, err := m.List(t.Context(), "9")
				if err != nil || len(list) != 1 {
					t.Fatalf("%s: %d sessions, %v", path, len(list), err)
				}
				got, _ := s.get(list[0].ID)
				sameMembers(t, got, begun+want)
				if err := errors.Join(m.RevokeAll(t.Context(), "9"), s.store.Delete(t.Context(), sid)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// sameMembers fails the test unless two records have the same members, in any order.
func sameMembers(t *testing.T, got, want string) {
	t.Helper()
	var a, b any
	if json.Unmarshal([]byte(got), &a) != nil || json.Unmarshal([]byte(want), &b) != nil || !reflect.DeepEqual(a, b) {
		t.Errorf("the record is\n%s\nwant\n%s", got, want)
	}
}

// TestObjectAsUser checks that an object in place of the user is logged once, with the path to set.
func TestObjectAsUser(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(before)
	for _, c := range []struct {
		o            expressjs.Options
		record, want string
	}{
		{expressjs.Options{UserMember: "user"}, `,"user":{"name":"Ann","id":7}}`, "UserMember=user.id"},
		{expressjs.Options{UserMember: "user"}, `,"user":{"name":"Ann","_id":"7"}}`, "UserMember=user._id"},
		{expressjs.Options{UserMember: "user"}, `,"user":{"roles":[],"login":"ann"}}`, "UserMember=user.login"},
		{expressjs.Options{UserMember: "user"}, `,"user":{}}`, "UserMember=user.id"},
		{expressjs.Options{UserMember: "a.user"}, `,"a":{"user":{"id":"x"}}}`, "UserMember=a.user.id"},
		{expressjs.Options{Passport: true}, `,"passport":{"user":{"id":7,"username":"ann"}}}`, "UserMember=passport.user.id"},
		{expressjs.Options{UserMember: "user"}, `,"user":"ann"}`, ""},
		{expressjs.Options{UserMember: "user"}, `,"user":null}`, ""},
		{expressjs.Options{UserMember: "user"}, `,"user":[7]}`, ""},
		{expressjs.Options{UserMember: "user.id"}, `,"user":{"id":7}}`, ""},
		{expressjs.Options{}, `,"user":{"id":7}}`, ""},
		{expressjs.Options{Passport: true}, `,"passport":{}}`, ""},
	} {
		log.Reset()
		store, client := redisStore(t, c.o)
		s, m := redisShelf(t, store, client), service(t, store, nil)
		for range 2 {
			s.put(sid, bare+c.record, time.Hour)
			in(t, m, sid, func(s *session.Session) { s.User() })
		}
		if got := log.String(); strings.Count(got, "\n") != min(1, len(c.want)) || !strings.Contains(got, c.want) || strings.Contains(got, "Ann") {
			t.Errorf("%s: the log is %s", c.record, got)
		}
	}
}

// TestOnlyLoginChangesTheUser checks that only Login changes the user: a Key of the member would
// log its value in at Express.
func TestOnlyLoginChangesTheUser(t *testing.T) {
	raw := func(name string) session.Key[json.RawMessage] { return session.NewKey[json.RawMessage](name) }
	for _, c := range []struct {
		o      expressjs.Options
		record string // end of the record
		name   string
		value  string
		login  string
		ok     bool
	}{
		{expressjs.Options{UserMember: "userId"}, `}`, "userId", `"root"`, "", false},
		{expressjs.Options{UserMember: "userId"}, `}`, "userId", `7`, "", false},
		{expressjs.Options{UserMember: "userId"}, `}`, "userId", `{"id":7}`, "", false},
		{expressjs.Options{UserMember: "userId"}, `}`, "userId", `true`, "", false},
		{expressjs.Options{UserMember: "userId"}, `}`, "userId", `null`, "", true},
		{expressjs.Options{UserMember: "userId"}, `}`, "userid", `"root"`, "", true},
		{expressjs.Options{UserMember: "userId"}, `,"userId":"ann"}`, "userId", `"root"`, "", false},
		{expressjs.Options{UserMember: "userId"}, `,"userId":"ann"}`, "userId", `"ann"`, "", true},
		{expressjs.Options{UserMember: "userId"}, `}`, "userId", `"root"`, "ann", false},
		{expressjs.Options{UserMember: "userId"}, `}`, "userId", `"ann"`, "ann", true},
		{expressjs.Options{Passport: true}, `}`, "passport", `{"user":"root"}`, "", false},
		{expressjs.Options{Passport: true}, `,"passport":{"user":7}}`, "passport", `{"user":8}`, "", false},
		{expressjs.Options{Passport: true}, `,"passport":{"user":7}}`, "passport", `{"user":7,"to":"/"}`, "", true},
		{expressjs.Options{UserMember: "user.id"}, `}`, "user", `{"id":"root"}`, "", false},
		{expressjs.Options{UserMember: "user.id"}, `,"user":{"id":7}}`, "user", `{"id":7,"name":"Ann"}`, "", true},
		{expressjs.Options{UserMember: "user.id"}, `}`, "user", `{"name":"Ann"}`, "", true},
		{expressjs.Options{UserMember: "user.id"}, `}`, "user", `{"id":null,"\u0069d":"root"}`, "", false},
		{expressjs.Options{UserMember: "user.id"}, `}`, "user", `{"id":"root","id":null}`, "", true},
		{expressjs.Options{UserMember: "user.id"}, `,"user":{"id":7}}`, "user", `{"id":7,"id":8}`, "", false},
		{expressjs.Options{}, `}`, "userId", `"root"`, "", true},
	} {
		onShelves(t, c.o, func(t *testing.T, s *shelf) {
			var failed error
			m := service(t, s.store, func(o *session.Options) {
				o.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) { failed = err }
				o.OnEvent = func(_ context.Context, e session.Event) {
					if e.Kind == session.EventStoreFailed {
						t.Errorf("%+v: %v", c, e)
					}
				}
			})
			s.put(sid, bare+c.record, time.Hour)
			change := func(s *session.Session) {
				raw(c.name).Set(s, json.RawMessage(c.value))
				if c.login != "" {
					s.Login(c.login)
				}
			}
			in(t, m, sid, change)
			if got, _ := s.get(sid); (failed == nil) != c.ok || failed != nil && (errors.Is(failed, session.ErrStore) || got != bare+c.record) {
				t.Errorf("%+v: %v, and the record is %s", c, failed, got)
			}
			if failed = nil; c.record == "}" { // the same change in a new session
				r, _ := http.NewRequest("GET", "https://example.test/", nil)
				var err error
				sessiontest.Do(t, m, r, func(s *session.Session) {
					change(s)
					if err = s.Save(t.Context()); err != nil {
						_ = s.Reload(t.Context())
					}
				})
				if (err == nil) != c.ok || errors.Is(err, session.ErrStore) {
					t.Errorf("%+v: begun: %v", c, err)
				}
			}
		})
	}
}

// TestLoginOverAnObject checks that a Login replaces an object that does not name a user.
func TestLoginOverAnObject(t *testing.T) {
	onShelves(t, expressjs.Options{UserMember: "user"}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		s.put(sid, bare+`,"user":{"id":7}}`, time.Hour)
		in(t, m, sid, func(s *session.Session) { s.Login("ann") })
		list, err := m.List(t.Context(), "ann")
		if err != nil || len(list) != 1 {
			t.Fatal(len(list), err)
		}
		if got, _ := s.get(list[0].ID); got != begun+`,"user":"ann"}` {
			t.Error(got)
		}
	})
}

// TestClearKeepsTheUser checks that a Clear, or a Delete of the member, keeps the user.
func TestClearKeepsTheUser(t *testing.T) {
	onShelves(t, expressjs.Options{UserMember: "user.id"}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		for _, f := range []func(*session.Session){
			(*session.Session).Clear, func(s *session.Session) { session.NewKey[int]("user").Delete(s) },
		} {
			s.put(sid, bare+`,"user":{"id":"7"}}`, time.Hour)
			in(t, m, sid, f)
			if got, _ := s.get(sid); got != bare+`,"user":{"id":"7"}}` {
				t.Error(got)
			}
		}
	})
}

// TestUsersThatCannotBeWritten checks that a user that a record cannot store, or that JavaScript
// would round, fails the Login as a mistake of the program.
func TestUsersThatCannotBeWritten(t *testing.T) {
	numeric, named := expressjs.Options{UserMember: "userId", NumericUser: true}, expressjs.Options{UserMember: "user.id"}
	for _, c := range []struct {
		o    expressjs.Options
		user string
		ok   bool
	}{
		{numeric, "0", true}, {numeric, "7", true}, {numeric, "-7", true},
		{numeric, "9007199254740991", true}, {numeric, "-9007199254740991", true},
		{numeric, "9007199254740992", false}, {numeric, "9007199254740993", false}, {numeric, "-9007199254740992", false},
		{numeric, "-9223372036854775808", false}, {numeric, "9223372036854775808", false},
		{numeric, "abc", false}, {numeric, "007", false}, {numeric, "-0", false}, {numeric, "+7", false}, {numeric, "7.0", false}, {numeric, " 7", false}, {numeric, "1e3", false},
		{named, "9007199254740993", true}, {named, "a\x00b", true}, {named, "\u2028<&>", true}, {named, "\xff", false}, {named, "a\xc3", false},
		{expressjs.Options{Passport: true}, "\xff", false}, {expressjs.Options{}, "\xff", true},
	} {
		onShelves(t, c.o, func(t *testing.T, s *shelf) {
			var failed error
			m := service(t, s.store, func(o *session.Options) {
				o.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) { failed = err }
				o.OnEvent = func(_ context.Context, e session.Event) {
					if e.Kind == session.EventStoreFailed {
						t.Errorf("%q: %v", c.user, e)
					}
				}
			})
			s.put(sid, bare+`}`, time.Hour)
			resp := in(t, m, sid, func(s *session.Session) { s.Login(c.user) })
			if (failed == nil) != c.ok || !c.ok && (resp.StatusCode != 500 || errors.Is(failed, session.ErrStore)) {
				t.Errorf("%q: %s, %v", c.user, resp.Status, failed)
			}
			list, err := m.List(t.Context(), c.user)
			if err != nil || len(list) == 1 != c.ok || c.ok && list[0].User != c.user {
				t.Errorf("%q: %d sessions, %v", c.user, len(list), err)
			}
		})
	}
}

// TestUserOfGoAlone checks the user without Passport and UserMember: Go cannot know the logins and
// logouts at Express, so it forgets the user that it has logged in when Express writes the session.
func TestUserOfGoAlone(t *testing.T) {
	onShelves(t, expressjs.Options{}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		r, _ := http.NewRequest("GET", "https://example.test/", nil)
		var id string
		sessiontest.Do(t, m, r, func(s *session.Session) { s.Login("ann") })
		expect := func(want string) {
			t.Helper()
			sessiontest.Do(t, m, r, func(s *session.Session) {
				if id = s.ID(); s.User() != want || id == "" {
					t.Errorf("session %q of %q, want %q", id, s.User(), want)
				}
			})
		}
		expect("ann")
		raw, life := s.get(id)
		s.put(id, raw, life) // the effect of a touch
		expect("ann")
		s.put(id, strings.TrimSuffix(raw, "}")+`,"views":1}`, life)
		expect("")
		sessiontest.Do(t, m, r, func(s *session.Session) { session.NewKey[int]("x").Set(s, 1) })
		expect("")
		if list, err := m.List(t.Context(), "ann"); err != nil || len(list) != 0 {
			t.Errorf("%d sessions, %v", len(list), err)
		}
	})
}

// TestLongUsers checks users with long names, such as a signed token.
func TestLongUsers(t *testing.T) {
	onShelves(t, expressjs.Options{UserMember: "userId"}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		for _, n := range []int{1024, 1025, 3000, 20000} {
			user := ""
			for len(user) < n {
				user += rand.Text()
			}
			user = user[:n]
			sid := fmt.Sprint("long-", n)
			s.put(sid, bare+`,"userId":"`+user+`"}`, time.Hour)
			resp := in(t, m, sid, func(s *session.Session) {
				if s.User() != user {
					t.Errorf("%d: %.20q %v", n, s.User(), s.Err())
				}
			})
			list, err := m.List(t.Context(), user)
			if resp.StatusCode != 200 || len(list) != 1 || err != nil {
				t.Errorf("%d: %s %d %.200v", n, resp.Status, len(list), err)
			}
			in(t, m, sid, func(s *session.Session) { session.NewKey[int]("n").Set(s, 1) })
			if err := m.RevokeAll(t.Context(), user); err != nil {
				t.Errorf("%d: %.200v", n, err)
			}
			if got, _ := s.get(sid); got != "" {
				t.Errorf("%d bytes: the record still exists", n)
			}
			s.drop(sid)
		}
	})
}
