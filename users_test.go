package session_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// TestRevokeIsOfTheUser checks that Revoke ends only sessions of the given user, because the id
// comes from a form and an attacker can send any.
func TestRevokeIsOfTheUser(t *testing.T) {
	spy := newSpy()
	var log events
	m := newManager(t, session.Options{Store: spy, OnEvent: log.on})
	h := m.Handler(clockRoutes)
	alice, bob := newBrowser(t, h), newBrowser(t, h)
	alice.get("/login")
	bob.get("/bob")
	id := body(bob.get("/id"))
	for what, err := range map[string]error{
		"another user's": m.Revoke(t.Context(), "alice", id),
		"of no session":  m.Revoke(t.Context(), "alice", "an id"),
		"an empty id":    m.Revoke(t.Context(), "alice", ""),
	} {
		if err != nil || log.count(session.EventRevoked) != 0 {
			t.Errorf("Revoke %s: %v, events %v", what, err, log.all)
		}
	}
	if got := body(bob.get("/look")); got != "bob" {
		t.Errorf("bob is logged in as %q", got)
	}
	for range 2 { // the second call returns nil too
		if err := m.Revoke(t.Context(), "bob", id); err != nil || log.count(session.EventRevoked) != 1 {
			t.Errorf("Revoke: %v, events %v", err, log.all)
		}
	}
	if got := body(bob.get("/look")) + body(alice.get("/look")); got != "alice" {
		t.Errorf("logged in as %q", got)
	}
}

// TestNoUser checks that an empty user is an error.
func TestNoUser(t *testing.T) {
	m := newManager(t, session.Options{})
	if _, err := m.List(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Error("List:", err)
	}
	if err := m.Revoke(t.Context(), "", "an id"); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Error("Revoke:", err)
	}
	if err := m.RevokeAll(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Error("RevokeAll:", err)
	}
	b := newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		name.Set(s, "visitor")
		if err := m.RevokeOthers(r.Context(), s); err == nil || !strings.Contains(err.Error(), "anonymous") {
			t.Error("RevokeOthers:", err)
		}
	}}))
	b.get("/")
}

// TestListTrustsNoStore checks that List drops sessions of other users and ended sessions, even
// if a store returns them.
func TestListTrustsNoStore(t *testing.T) {
	now := time.Now().Truncate(time.Millisecond)
	record := func(id, user string, ends time.Duration, data string) *session.Record {
		return &session.Record{ID: id, User: user, Data: []byte(data), Created: now, LastSeen: now, Deadline: now.Add(ends), Expires: now.Add(ends), Version: 1}
	}
	m := newManager(t, session.Options{Store: listStore{newSpy(), []*session.Record{
		record("good", "alice", time.Hour, "{}"),
		record("another's", "bob", time.Hour, "{}"),
		record("nobody's", "", time.Hour, "{}"),
		record("over", "alice", -time.Hour, "{}"),
		record("ended", "alice", time.Hour, `{"session.ended":"logout"}`),
	}}})
	list, err := m.List(t.Context(), "alice")
	if err != nil || len(list) != 1 || list[0].ID != "good" {
		t.Errorf("%d sessions, %v", len(list), err)
	}
}

// listStore lists the same records for every user.
type listStore struct {
	session.Store
	records []*session.Record
}

func (s listStore) List(context.Context, string) ([]*session.Record, error) {
	return slices.Clone(s.records), nil
}

func TestListInOrder(t *testing.T) {
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		h := m.Handler(clockRoutes)
		var all []*browser
		var want []string
		for range 4 {
			b := newBrowser(t, h)
			b.get("/login")
			all = append(all, b)
			want = append([]string{body(b.get("/id"))}, want...)
			time.Sleep(2 * minute)
		}
		all[1].get("/look")
		want = append([]string{want[2]}, slices.Delete(slices.Clone(want), 2, 3)...)
		newBrowser(t, h).get("/bob")
		all[3].get("/logout")
		want = slices.Delete(want, 1, 2)
		listed, err := m.List(t.Context(), "alice")
		var got []string
		for _, s := range listed {
			got = append(got, s.ID)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("listed %v (%v), want %v", got, err, want)
		}
	})
}

// TestListOrderOfEqualTimes checks that sessions that were last seen at the same time have the same
// order in each list, in whatever order the store returns them.
func TestListOrderOfEqualTimes(t *testing.T) {
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		h := m.Handler(clockRoutes)
		var want []string
		for range 20 {
			b := newBrowser(t, h)
			b.get("/login")
			want = append(want, body(b.get("/id")))
		}
		slices.Sort(want)
		listed, err := m.List(t.Context(), "alice")
		var got []string
		for _, s := range listed {
			got = append(got, s.ID)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("listed %v (%v), want %v", got, err, want)
		}
	})
}

// TestLoginOfALongName: promise 7. A user name that no store can keep is a mistake of the
// program, not a failure of the store.
func TestLoginOfALongName(t *testing.T) {
	var log events
	visit, spy, _ := newVisitor(t, session.Options{OnEvent: log.on})
	for user, want := range map[string]int{
		strings.Repeat("x", 1024): http.StatusOK,
		strings.Repeat("x", 1025): http.StatusInternalServerError,
		strings.Repeat("é", 513):  http.StatusInternalServerError,
	} {
		spy.forget()
		resp := visit(func(s *session.Session) {
			s.Login(user)
			if err := s.Err(); (err != nil) != (want != 200) || errors.Is(err, session.ErrStore) {
				t.Errorf("%d bytes: %v", len(user), err)
			}
			if want == 200 == (s.User() != user) {
				t.Errorf("%d bytes: User is %q", len(user), s.User())
			}
		})
		if stored := spy.count("Create")+spy.count("Save") > 0; resp.StatusCode != want || stored != (want == 200) {
			t.Errorf("%d bytes: %s, stored %v", len(user), resp.Status, stored)
		}
	}
	if n := log.count(session.EventStoreFailed); n > 0 {
		t.Errorf("%d EventStoreFailed", n)
	}
}

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
		if text := fmt.Sprintf("%+v", i); !strings.HasPrefix(text, "session.Info[ID="+i.ID+" User=alice ") {
			t.Errorf("an Info prints as %s", text)
		}
		log.Reset()
		slog.New(slog.NewTextHandler(&log, nil)).Info("", "info", i)
		if !strings.Contains(log.String(), " info.ID="+i.ID+" info.User=alice ") {
			t.Errorf("slog prints %s", log.String())
		}
	})
}

// only returns the only session of alice.
func (d *desk) only() session.Info {
	d.t.Helper()
	all, err := d.m.List(d.t.Context(), "alice")
	if err != nil || len(all) != 1 {
		d.t.Fatal(all, err)
	}
	return all[0]
}

// edit changes the only session of alice, and returns the error of Edit.
func (d *desk) edit(f func(s *session.Session)) error {
	d.t.Helper()
	return d.m.Edit(d.t.Context(), "alice", d.only().ID, f)
}

// TestEdit checks that an Edit changes values and flashes, that the user's next request sees
// them, and that the clocks are not moved.
func TestEdit(t *testing.T) {
	for what, c := range map[string]struct {
		edit func(s *session.Session)
		want string
	}{
		"Set":      {func(s *session.Session) { name.Set(s, "after") }, "after 0 []"},
		"Delete":   {func(s *session.Session) { name.Delete(s) }, " 0 []"},
		"Pop":      {func(s *session.Session) { name.Pop(s) }, " 0 []"},
		"Update":   {func(s *session.Session) { visits.Update(s, func(n int) int { return n + 1 }) }, "before 1 []"},
		"AddFlash": {func(s *session.Session) { s.AddFlash("info", "hello") }, "before 0 [{info hello}]"},
		"Flashes":  {func(s *session.Session) { s.AddFlash("info", "hello"); s.Flashes() }, "before 0 []"},
		"Clear":    {func(s *session.Session) { s.Clear() }, " 0 []"},
		"several": {func(s *session.Session) {
			s.Clear()
			visits.Set(s, 1)
			visits.Update(s, func(n int) int { return n + 1 })
			if name.Get(s) != "" || visits.Get(s) != 2 || !slices.Equal(s.Names(), []string{"visits"}) {
				t.Errorf("the function does not see what it has changed: %q", s.Names())
			}
		}, " 2 []"},
	} {
		t.Run(what, func(t *testing.T) {
			atDesk(t, session.Options{}, func(d *desk) {
				b := d.browser()
				before := d.only()
				time.Sleep(15 * minute) // of an idle timeout of 20
				err := d.edit(func(s *session.Session) {
					if s.ID() != before.ID || s.User() != "alice" || !s.AuthTime().Equal(before.Created) || s.IsNew() || s.Ended() || s.Remembered() || s.Err() != nil ||
						!s.Created().Equal(before.Created) || !s.LastSeen().Equal(before.LastSeen) || !s.Expires().Equal(before.Expires) || name.Get(s) != "before" {
						t.Error("the function sees another session")
					}
					c.edit(s)
				})
				if err != nil {
					t.Fatal(err)
				}
				if after := d.only(); !after.LastSeen.Equal(before.LastSeen) || !after.Expires.Equal(before.Expires) || !after.Created.Equal(before.Created) {
					t.Errorf("the clocks have moved: %v, before %v", after, before)
				}
				if d.do(b, func(s *session.Session) {
					if got := fmt.Sprint(name.Get(s), " ", visits.Get(s), " ", s.Flashes()); got != c.want {
						t.Errorf("the user sees %s, want %s", got, c.want)
					}
				}) {
					t.Error("the user got another token")
				}
				if len(d.log.all) != 1 { // the event of the login
					t.Error("events", d.log.all)
				}
			})
		})
	}
}

// TestEditRefusesOtherCalls checks that all other methods of Session fail the Edit, and that
// nothing is stored.
func TestEditRefusesOtherCalls(t *testing.T) {
	for call, f := range map[string]func(s *session.Session) error{
		"Login":       func(s *session.Session) error { s.Login("alice"); return s.Err() },
		"Logout":      func(s *session.Session) error { s.Logout(); return s.Err() },
		"Renew":       func(s *session.Session) error { s.Renew(); return s.Err() },
		"Remember":    func(s *session.Session) error { s.Remember(day); return s.Err() },
		"MarkPassive": func(s *session.Session) error { s.MarkPassive(); return s.Err() },
		"Save":        func(s *session.Session) error { return s.Save(t.Context()) },
		"Reload":      func(s *session.Session) error { return s.Reload(t.Context()) },
		"Done":        func(s *session.Session) error { <-s.Done(); return s.Err() },
		"Take":        func(s *session.Session) error { _, _, err := name.Take(t.Context(), s); return err },
		"UpdateNow": func(s *session.Session) error {
			_, err := name.UpdateNow(t.Context(), s, func(string) string { return "other" })
			return err
		},
		"Refresh": func(s *session.Session) error {
			_, err := name.Refresh(t.Context(), s, func(string) bool { return true }, func(context.Context, string) (string, error) { return "other", nil })
			return err
		},
	} {
		t.Run(call, func(t *testing.T) {
			for _, o := range []session.Options{{}, {Tokens: new(plainTokens), Cookie: session.CookieOptions{Name: "session"}}} {
				atDesk(t, o, func(d *desk) {
					b := d.browser()
					id := d.only().ID
					d.spy.forget()
					err := d.m.Edit(t.Context(), "alice", id, func(s *session.Session) {
						name.Set(s, "other")
						if err := f(s); err == nil || !strings.Contains(err.Error(), "Edit: "+call+" ") {
							t.Errorf("in the function: %v", err)
						}
						visits.Set(s, 7)
					})
					if err == nil || !strings.Contains(err.Error(), "Edit: "+call+" ") || errors.Is(err, session.ErrStore) {
						t.Errorf("Edit: %v", err)
					}
					if d.spy.count("") != 1 { // its Load
						t.Errorf("%d calls of the store", d.spy.count(""))
					}
					d.do(b, func(s *session.Session) {
						if name.Get(s) != "before" || visits.Get(s) != 0 || s.User() != "alice" {
							t.Errorf("the user is %q, with %q and %d", s.User(), name.Get(s), visits.Get(s))
						}
					})
				})
			}
		})
	}
}

// TestEditOfNoSession checks that the Edit of a session that has ended or belongs to another
// user returns ErrEnded without calling the function.
func TestEditOfNoSession(t *testing.T) {
	for what, prepare := range map[string]func(d *desk, b *browser, id string) (user, of string){
		"unknown":         func(d *desk, b *browser, id string) (string, string) { return "alice", "unknown" },
		"of another user": func(d *desk, b *browser, id string) (string, string) { return "bob", id },
		"logged out": func(d *desk, b *browser, id string) (string, string) {
			d.do(b, (*session.Session).Logout)
			return "alice", id
		},
		"revoked": func(d *desk, b *browser, id string) (string, string) {
			d.m.Revoke(t.Context(), "alice", id)
			return "alice", id
		},
		"expired": func(d *desk, b *browser, id string) (string, string) { time.Sleep(20 * minute); return "alice", id },
		"given to another user": func(d *desk, b *browser, id string) (string, string) {
			d.do(b, func(s *session.Session) { s.Login("bob") })
			return "alice", id
		},
		"anonymous": func(d *desk, b *browser, id string) (string, string) {
			d.do(d.visitor(), func(s *session.Session) {
				name.Set(s, "value")
				s.Save(d.t.Context())
				id = s.ID()
			})
			return "alice", id
		},
	} {
		t.Run(what, func(t *testing.T) {
			atDesk(t, session.Options{}, func(d *desk) {
				b := d.browser()
				user, id := prepare(d, b, d.only().ID)
				before := len(d.log.all)
				err := d.m.Edit(t.Context(), user, id, func(s *session.Session) { t.Error("the function is called") })
				if err != session.ErrEnded || len(d.log.all) != before {
					t.Errorf("%v, events %v", err, d.log.all[before:])
				}
			})
		})
	}
	atDesk(t, session.Options{}, func(d *desk) {
		d.browser()
		err := d.m.Edit(t.Context(), "", d.only().ID, func(s *session.Session) { t.Error("the function is called") })
		if err == nil || !strings.Contains(err.Error(), "empty") {
			t.Errorf("of the empty user: %v", err)
		}
	})
}

// TestEditMeetsAnEnding checks that a session that ends after the function was called stays
// ended.
func TestEditMeetsAnEnding(t *testing.T) {
	for what, end := range map[string]func(d *desk, b *browser, id string){
		"Logout":  func(d *desk, b *browser, id string) { d.do(b, (*session.Session).Logout) },
		"Revoke":  func(d *desk, b *browser, id string) { d.m.Revoke(t.Context(), "alice", id) },
		"Login":   func(d *desk, b *browser, id string) { d.do(b, func(s *session.Session) { s.Login("bob") }) },
		"deleted": func(d *desk, b *browser, id string) { d.spy.Store.Delete(t.Context(), id) },
	} {
		t.Run(what, func(t *testing.T) {
			atDesk(t, session.Options{}, func(d *desk) {
				b := d.browser()
				id := d.only().ID
				d.spy.hook(once(d.spy, "Save", func(context.Context) { end(d, b, id) }))
				calls := 0
				if err := d.m.Edit(t.Context(), "alice", id, func(s *session.Session) { name.Set(s, "lost"); calls++ }); err != session.ErrEnded || calls != 1 {
					t.Errorf("%v after %d calls of the function", err, calls)
				}
				if all, err := d.m.List(t.Context(), "alice"); len(all) > 0 || err != nil {
					t.Errorf("%d sessions are left, %v", len(all), err)
				}
			})
		})
	}
}

// TestEditMeetsAChange checks that if the session changes meanwhile, the function is called
// again with the newer session, so that it decides by the values that it replaces. Other values
// keep every byte.
func TestEditMeetsAChange(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		id := d.only().ID
		rec, err := d.spy.Store.Load(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		const untouched = `"odd":{ "b":1.0e2,"a" : "\u00e9" }`
		old := rec.Version
		rec.Version++
		rec.Data = withKey(rec.Data, `{"name":"trial",`+untouched+`}`)
		if err := d.spy.Store.Save(t.Context(), rec, old); err != nil {
			t.Fatal(err)
		}
		var seen []string
		changes := []string{"paid", "cancelled"}
		d.spy.hook(func(ctx context.Context, call, _ string) error {
			if call != "Save" || len(changes) == 0 {
				return nil
			}
			rec, err := d.spy.Store.Load(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			old := rec.Version
			rec.Version++
			rec.Data = withKey(rec.Data, `{"name":"`+changes[0]+`","visits":7,`+untouched+`}`)
			changes = changes[1:]
			return d.spy.Store.Save(ctx, rec, old)
		})
		err = d.m.Edit(t.Context(), "alice", id, func(s *session.Session) {
			seen = append(seen, name.Get(s))
			if name.Get(s) == "trial" {
				s.Clear()
			}
			s.AddFlash("info", "hello")
		})
		if err != nil || !slices.Equal(seen, []string{"trial", "paid", "cancelled"}) {
			t.Errorf("%v, the function has seen %q", err, seen)
		}
		if n := d.log.count(session.EventConflict); n != 1 {
			t.Errorf("%d EventConflict", n)
		}
		d.do(b, func(s *session.Session) {
			if f := s.Flashes(); name.Get(s) != "cancelled" || visits.Get(s) != 7 || len(f) != 1 {
				t.Errorf("stored are %q, %d, %v", name.Get(s), visits.Get(s), f)
			}
		})
		if rec, err = d.spy.Store.Load(t.Context(), id); err != nil || !strings.Contains(string(rec.Data), untouched) {
			t.Errorf("the untouched value has changed: %s, %v", rec.Data, err)
		}
	})
}

// TestEditInTheGraceOfARenewal checks that in the grace of a renewal a request with the new
// token sees the change, that one with the previous token sees the session as it was, and that
// both tokens are kept.
func TestEditInTheGraceOfARenewal(t *testing.T) {
	for what, renew := range map[string]func(s *session.Session){
		"Renew":     (*session.Session).Renew,
		"Remember":  func(s *session.Session) { s.Remember(day) },
		"Login":     func(s *session.Session) { s.Login("alice") },
		"automatic": func(s *session.Session) { s.User() },
	} {
		t.Run(what, func(t *testing.T) {
			atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
				b := d.browser()
				previous := b.replay(b.cookie())
				time.Sleep(minute)
				if !d.do(b, renew) {
					t.Fatal("no new token")
				}
				if err := d.edit(func(s *session.Session) { name.Set(s, "edited") }); err != nil {
					t.Fatal(err)
				}
				d.expect(b, "edited")
				want := "before"
				if what == "automatic" {
					want = "edited"
				}
				d.expect(previous, want)
				d.do(previous, func(s *session.Session) { visits.Set(s, 7) })
				if err := d.edit(func(s *session.Session) {
					if name.Get(s) != "edited" || visits.Get(s) != 7 {
						t.Errorf("the next Edit sees %q, %d", name.Get(s), visits.Get(s))
					}
					name.Delete(s)
				}); err != nil {
					t.Fatal(err)
				}
				d.expect(b, "")
				time.Sleep(minute / 2)
				d.expectReplaced(previous)
				d.expect(b, "")
			})
		})
	}
}

// TestEditByAnotherManager checks that a Manager that cannot read the browser's cookie can edit
// its session.
func TestEditByAnotherManager(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		admin := newManager(t, session.Options{Store: d.spy, Bearer: true, Secrets: [][]byte{[]byte("another secret of thirty-two byte")}})
		if err := admin.Edit(t.Context(), "alice", d.only().ID, func(s *session.Session) { name.Set(s, "edited") }); err != nil {
			t.Error(err)
		}
		d.expect(b, "edited")
	})
}

// TestEditEndBy checks that EndBy in an Edit limits the end of the session, and ends it if the
// time has passed.
func TestEditEndBy(t *testing.T) {
	for _, wait := range []time.Duration{5 * minute, 0, -time.Hour} {
		t.Run(wait.String(), func(t *testing.T) {
			atDesk(t, session.Options{}, func(d *desk) {
				b := d.browser()
				stream := b.at(d.m).listen(d.m)
				if err := d.edit(func(s *session.Session) {
					name.Set(s, "edited")
					s.EndBy(time.Now().Add(wait))
				}); err != nil {
					t.Error(err)
				}
				if wait > 0 {
					if got := time.Until(d.only().Expires); got != wait {
						t.Errorf("%v are left", got)
					}
					d.expect(b, "edited")
					time.Sleep(wait)
				} else if synctest.Wait(); fmt.Sprint(stream) == "open" || d.log.count(session.EventRevoked) != 1 {
					t.Errorf("the stream is %v, events %v", stream, d.log.all)
				}
				if all, err := d.m.List(t.Context(), "alice"); len(all) > 0 || err != nil {
					t.Errorf("%d sessions are left, %v", len(all), err)
				}
				if d.do(b, func(s *session.Session) {
					if s.User() != "" || !s.Ended() {
						t.Errorf("logged in as %q", s.User())
					}
					s.Logout()
				}); b.cookie() != "" {
					t.Error("a Logout afterwards leaves the cookie")
				}
				stream.hangUp()
			})
		})
	}
	atDesk(t, session.Options{}, func(d *desk) {
		d.browser()
		if err := d.edit(func(s *session.Session) { s.EndBy(time.Time{}) }); err == nil || !strings.Contains(err.Error(), "EndBy") {
			t.Errorf("EndBy of the zero time: %v", err)
		}
	})
}

// TestEditThatCannotBeStored checks that if a change cannot be stored, Edit returns an error
// and stores nothing.
func TestEditThatCannotBeStored(t *testing.T) {
	functions := session.NewKey[any]("function")
	for what, c := range map[string]struct {
		edit func(s *session.Session)
		is   error
	}{
		"too large":   {func(s *session.Session) { name.Set(s, strings.Repeat("x", 1<<10)) }, session.ErrTooLarge},
		"no JSON":     {func(s *session.Session) { functions.Set(s, func() {}) }, nil},
		"bad UTF-8":   {func(s *session.Session) { name.Set(s, "\xff") }, nil},
		"in a change": {func(s *session.Session) { functions.Update(s, func(any) any { return func() {} }) }, nil},
	} {
		t.Run(what, func(t *testing.T) {
			atDesk(t, session.Options{MaxDataSize: 500}, func(d *desk) {
				b := d.browser()
				err := d.edit(func(s *session.Session) { visits.Set(s, 7); c.edit(s) })
				if err == nil || c.is != nil && !errors.Is(err, c.is) || errors.Is(err, session.ErrStore) || d.log.count(session.EventStoreFailed) > 0 {
					t.Errorf("%v, events %v", err, d.log.all)
				}
				d.do(b, func(s *session.Session) {
					if name.Get(s) != "before" || visits.Get(s) != 0 {
						t.Errorf("stored are %q, %d", name.Get(s), visits.Get(s))
					}
				})
			})
		})
	}
}

// TestEditOfManyFlashes checks that flashes beyond the limit are dropped, the oldest first, and
// reported.
func TestEditOfManyFlashes(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		if err := d.edit(func(s *session.Session) {
			for i := range 51 {
				s.AddFlash("n", fmt.Sprint(i))
			}
		}); err != nil || d.log.count(session.EventDropped) != 1 {
			t.Errorf("%v, events %v", err, d.log.all)
		}
		d.do(b, func(s *session.Session) {
			if f := s.Flashes(); len(f) != 50 || f[0].Text != "1" {
				t.Errorf("%d flashes: %v", len(f), f)
			}
		})
	})
}

// TestEditOverAFailingStore checks that a failing store is an ErrStore and one event, and that
// a write with an unknown outcome is not repeated.
func TestEditOverAFailingStore(t *testing.T) {
	lost := fmt.Errorf("%w: the reply is lost", session.ErrIndeterminate)
	for what, c := range map[string]struct {
		call  string
		err   error
		calls int // number of calls of the function
	}{
		"load":          {"Load", errDown, 0},
		"save":          {"Save", errDown, 1},
		"indeterminate": {"Save", lost, 1},
	} {
		t.Run(what, func(t *testing.T) {
			atDesk(t, session.Options{}, func(d *desk) {
				d.browser()
				id := d.only().ID
				d.spy.forget()
				d.spy.hookAfter(func(_ context.Context, call, _ string, err error) error {
					if call == c.call {
						return c.err
					}
					return err
				})
				calls := 0
				err := d.m.Edit(t.Context(), "alice", id, func(s *session.Session) {
					calls++
					visits.Update(s, func(n int) int { return n + 1 })
				})
				if !errors.Is(err, session.ErrStore) || !errors.Is(err, c.err) || errors.Is(err, session.ErrEnded) {
					t.Error(err)
				}
				if calls != c.calls || d.spy.count(c.call) != 1 {
					t.Errorf("%d calls of the function, %d of the store's %s", calls, d.spy.count(c.call), c.call)
				}
				if n := d.log.count(session.EventStoreFailed); n != 1 || d.log.all[len(d.log.all)-1].ID != id {
					t.Error("events", d.log.all)
				}
			})
		})
	}
}

// TestEditWithoutAChange checks that an Edit without a change stores nothing.
func TestEditWithoutAChange(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		d.browser()
		id := d.only().ID
		time.Sleep(15 * minute)
		d.spy.forget()
		if err := d.m.Edit(t.Context(), "alice", id, func(s *session.Session) { name.Get(s); s.Flashes() }); err != nil || d.spy.count("") != 1 {
			t.Errorf("%v, %d calls of the store", err, d.spy.count(""))
		}
	})
}

// TestEditOfALostConnection: promise 8. An Edit uses the values and the deadline of its
// context, not its cancellation.
func TestEditOfALostConnection(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		id := d.only().ID
		ctx, cancel := context.WithCancel(context.WithValue(d.t.Context(), d, "value"))
		cancel()
		d.spy.hook(func(ctx context.Context, call, _ string) error {
			if ctx.Value(d) != "value" {
				t.Errorf("%s does not get the values of the context", call)
			}
			return nil
		})
		if err := d.m.Edit(ctx, "alice", id, func(s *session.Session) { name.Set(s, "edited") }); err != nil {
			t.Error(err)
		}
		d.spy.hook(nil)
		d.expect(b, "edited")

		ctx, cancel = context.WithTimeout(d.t.Context(), time.Second)
		defer cancel()
		d.spy.hook(func(ctx context.Context, call, _ string) error { <-ctx.Done(); return ctx.Err() })
		called := time.Now()
		err := d.m.Edit(ctx, "alice", id, func(s *session.Session) {})
		if took := time.Since(called); !errors.Is(err, context.DeadlineExceeded) || took != time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// TestEditByASlowFunction checks that a function that takes longer than StoreTimeout does not
// reduce the time of the store calls.
func TestEditByASlowFunction(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		if err := d.edit(func(s *session.Session) {
			time.Sleep(minute)
			name.Set(s, "edited")
		}); err != nil {
			t.Error(err)
		}
		d.expect(b, "edited")
	})
}

// TestEditByAFunctionThatPanics checks that a panic of the function reaches the caller, that
// nothing is stored, and that no mutex stays locked, also if the function is called after a
// conflict.
func TestEditByAFunctionThatPanics(t *testing.T) {
	for _, conflicts := range []bool{false, true} {
		atDesk(t, session.Options{}, func(d *desk) {
			b := d.browser()
			id := d.only().ID
			if conflicts {
				d.spy.hook(once(d.spy, "Save", func(context.Context) {
					d.do(b, func(s *session.Session) { visits.Set(s, 7) })
				}))
			}
			calls := 0
			func() {
				defer func() {
					if v := recover(); v != "a bug" {
						t.Errorf("the panic became %v", v)
					}
				}()
				d.m.Edit(t.Context(), "alice", id, func(s *session.Session) {
					name.Set(s, "lost")
					if calls++; calls == 2 || !conflicts {
						panic("a bug")
					}
				})
			}()
			d.expect(b, "before")
			if err := d.edit(func(s *session.Session) { name.Set(s, "edited") }); err != nil {
				t.Error(err)
			}
			d.expect(b, "edited")
		})
	}
}

// TestEditsAtOnce: promises 1 and 21. Concurrent Edits and requests in two processes lose no
// change, and their cost grows linearly.
func TestEditsAtOnce(t *testing.T) {
	const n = 20
	spy := newSpy()
	log := &events{}
	var managers []*session.Manager
	for range 2 {
		managers = append(managers, newManager(t, session.Options{Store: spy, OnEvent: log.on}))
	}
	b := newBrowser(t, managers[0].Handler(routes{
		"/login": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("alice") },
		"/count": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			visits.Update(s, func(n int) int { return n + 1 })
		},
	}))
	b.get("/login")
	all, err := managers[0].List(t.Context(), "alice")
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	edit := func(m *session.Manager, f func(s *session.Session)) {
		if err := m.Edit(t.Context(), "alice", all[0].ID, f); err != nil {
			t.Error(err)
		}
	}
	spy.forget()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			edit(managers[i%2], func(s *session.Session) {
				visits.Set(s, visits.Get(s)+1) // must not overwrite a concurrent Update
				keyOfRequest(i).Set(s, i)
			})
		})
		wg.Go(func() {
			if resp := b.replay(b.cookie()).get("/count"); resp.StatusCode != http.StatusOK {
				t.Error(resp.Status)
			}
		})
	}
	wg.Wait()
	edit(managers[0], func(s *session.Session) {
		if visits.Get(s) != 2*n || len(s.Names()) != n+1 {
			t.Errorf("counted are %d of %d, and there are %d values", visits.Get(s), 2*n, len(s.Names()))
		}
	})
}

// TestEditsAtOnceCost checks that n concurrent Edits of one session in one process cost fewer
// than 5 store calls each.
func TestEditsAtOnceCost(t *testing.T) {
	const n = 50
	synctest.Test(t, func(t *testing.T) {
		spy, log := newSpy(), &events{}
		m := newManager(t, session.Options{Store: spy, OnEvent: log.on})
		b := newBrowser(t, m.Handler(clockRoutes))
		b.get("/login")
		id := body(b.get("/id"))
		spy.hook(func(context.Context, string, string) error { time.Sleep(time.Millisecond); return nil })
		spy.forget()
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				if err := m.Edit(t.Context(), "alice", id, func(s *session.Session) { visits.Set(s, visits.Get(s)+1) }); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if calls := spy.count(""); calls >= 5*n || log.count(session.EventConflict) > n {
			t.Errorf("%d calls of the store, %d EventConflict", calls, log.count(session.EventConflict))
		}
		if err := m.Edit(t.Context(), "alice", id, func(s *session.Session) {
			if visits.Get(s) != n {
				t.Errorf("%d of %d are counted", visits.Get(s), n)
			}
		}); err != nil {
			t.Error(err)
		}
	})
}

// TestEditInOnEvent checks that OnEvent is called when the Edit holds no lock, so that OnEvent
// may edit the session.
func TestEditInOnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spy := newSpy()
		var m *session.Manager
		id := ""
		m = newManager(t, session.Options{Store: spy, OnEvent: func(ctx context.Context, e session.Event) {
			if e.Kind == session.EventConflict {
				if err := m.Edit(ctx, "alice", id, func(s *session.Session) { name.Set(s, "noted") }); err != nil {
					t.Error(err)
				}
			}
		}})
		b := newBrowser(t, m.Handler(clockRoutes))
		b.get("/login")
		id = body(b.get("/id"))
		spy.hook(once(spy, "Save", func(context.Context) { b.get("/set") }))
		if err := m.Edit(t.Context(), "alice", id, func(s *session.Session) { visits.Set(s, 7) }); err != nil {
			t.Error(err)
		}
		if got := body(b.get("/look")); got != "notedalice" {
			t.Errorf("stored is %s", got)
		}
	})
}

// TestEditBesideARequest checks that a request that had loaded the session before an Edit keeps
// the change of the Edit and its own.
func TestEditBesideARequest(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		d.do(b, func(s *session.Session) {
			visits.Set(s, 7)
			if err := d.edit(func(s *session.Session) { name.Set(s, "edited") }); err != nil {
				t.Error(err)
			}
			if name.Get(s) != "before" {
				t.Errorf("the request sees %q", name.Get(s))
			}
			if err := s.Save(t.Context()); err != nil || name.Get(s) != "edited" {
				t.Errorf("after its Save the request sees %q, %v", name.Get(s), err)
			}
		})
		if got, ok := visits.Of(d.only()); got != 7 || !ok {
			t.Errorf("the request's change is lost: %d", got)
		}
	})
}

// TestEditByGoroutines checks that several goroutines may use the Session of an Edit.
func TestEditByGoroutines(t *testing.T) {
	const n = 10
	m := newManager(t, session.Options{})
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
	id := ""
	m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Login("alice")
		s.Save(r.Context())
		id = s.ID()
	})).ServeHTTP(w, r)
	if err := m.Edit(t.Context(), "alice", id, func(s *session.Session) {
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() { visits.Update(s, func(n int) int { return n + 1 }) })
		}
		wg.Wait()
	}); err != nil {
		t.Error(err)
	}
	if err := m.Edit(t.Context(), "alice", id, func(s *session.Session) {
		if visits.Get(s) != n {
			t.Errorf("%d of %d are counted", visits.Get(s), n)
		}
	}); err != nil {
		t.Error(err)
	}
}

// members returns pages behind RequireUser, after before. Each says which handler answered.
func members(m *session.Manager, before func(s *session.Session), otherwise http.Handler) http.Handler {
	page := m.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "next ", session.From(r.Context()).User())
	}), otherwise)
	return m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if before != nil {
			before(session.From(r.Context()))
		}
		page.ServeHTTP(w, r)
	}))
}

// tellWhy is a handler for otherwise.
var tellWhy = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusForbidden)
	s := session.From(r.Context())
	fmt.Fprintf(w, "otherwise %v %v", s.Err(), s.Ended())
})

// TestRequireUser checks that RequireUser calls next for a logged-in user, also by a pending
// Login, and otherwise for all others.
func TestRequireUser(t *testing.T) {
	alice := func(s *session.Session) { s.Login("alice") }
	logout := func(s *session.Session) { s.Logout() }
	for what, c := range map[string]struct {
		earlier, before func(s *session.Session) // run in an earlier request, and before RequireUser
		wait            time.Duration
		want            string
	}{
		"a first visit":               {nil, nil, 0, "otherwise <nil> false"},
		"anonymous":                   {write, nil, 0, "otherwise <nil> false"},
		"a user":                      {alice, nil, 0, "next alice"},
		"a user, before the idle end": {alice, nil, 19 * minute, "next alice"},
		"an ended session":            {alice, nil, 21 * minute, "otherwise <nil> true"},
		"a pending Login":             {nil, alice, 0, "next alice"},
		"a Login as another":          {alice, func(s *session.Session) { s.Login("bob") }, 0, "next bob"},
		"a pending Logout":            {alice, logout, 0, "otherwise <nil> false"},
		"a mistake and a user":        {alice, func(s *session.Session) { s.Login("") }, 0, "Internal Server Error\n"},
		"a mistake and no user":       {nil, func(s *session.Session) { s.Login("") }, 0, "Internal Server Error\n"},
		"a Logout, then a Login":      {alice, func(s *session.Session) { s.Logout(); s.Login("bob") }, 0, "next bob"},
	} {
		inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
			b := newBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c.earlier != nil {
					c.earlier(session.From(r.Context()))
				}
			})))
			b.get("/")
			time.Sleep(c.wait)
			b.h = members(m, c.before, tellWhy)
			if got := body(b.get("/")); got != c.want {
				t.Errorf("%s: %q, want %q", what, got, c.want)
			}
		})
	}
}

// TestRequireUserAfterARenewal checks that a request with a replaced token is passed to
// otherwise.
func TestRequireUserAfterARenewal(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		old := b.replay(b.cookie())
		d.do(b, func(s *session.Session) { s.Renew() })
		old.h = members(d.m, nil, tellWhy)
		if got := body(old.get("/")); got != "next alice" {
			t.Errorf("in the grace: %q", got)
		}
		time.Sleep(11 * second)
		if got := body(old.get("/")); got != "otherwise "+session.ErrReplaced.Error()+" false" {
			t.Errorf("after the grace: %q", got)
		}
		old.h = members(d.m, nil, nil)
		if resp := old.get("/"); resp.StatusCode != 401 {
			t.Errorf("after the grace, without otherwise: %s", resp.Status)
		}
	})
}

// TestRequireUserWithoutOtherwise checks that without otherwise the response is 401 with an
// empty body, and with Bearer has a challenge.
func TestRequireUserWithoutOtherwise(t *testing.T) {
	for _, isBearer := range []bool{false, true} {
		m := newManager(t, session.Options{Bearer: isBearer})
		for _, before := range []func(*session.Session){nil, write} {
			w := httptest.NewRecorder()
			members(m, before, nil).ServeHTTP(w, httptest.NewRequest("GET", "https://localhost/", nil))
			challenge := w.Header()["Www-Authenticate"]
			if w.Code != 401 || w.Body.Len() > 0 || isBearer != (fmt.Sprint(challenge) == "[Bearer]") || !isBearer && challenge != nil {
				t.Errorf("Bearer %v: %d %q %q", isBearer, w.Code, w.Body, challenge)
			}
			if stored := w.Header()["Set-Cookie"] != nil || w.Header()["Session-Token"] != nil; stored != (before != nil) {
				t.Errorf("Bearer %v: the value that was set before is stored: %v", isBearer, stored)
			}
		}
	}
}

// TestRequireUserWhileTheStoreFails: promise 7. While the store fails neither handler runs: the
// response is that of ErrorHandler, also if Save or Reload has returned the error before, and
// whatever a middleware in between adds.
func TestRequireUserWhileTheStoreFails(t *testing.T) {
	own := func(w http.ResponseWriter, r *http.Request, err error) {
		if !errors.Is(err, session.ErrStore) {
			t.Errorf("ErrorHandler gets %v", err)
		}
		w.WriteHeader(http.StatusInsufficientStorage)
		fmt.Fprint(w, "own")
	}
	failed := 0
	for what, before := range map[string]func(s *session.Session){
		"nothing before":     func(s *session.Session) {},
		"Reload":             func(s *session.Session) { s.Reload(t.Context()) },
		"Save":               func(s *session.Session) { s.Save(t.Context()) },
		"a value and a Save": func(s *session.Session) { name.Set(s, "x"); s.Save(t.Context()) },
		"a Login and a Save": func(s *session.Session) { s.Login("bob"); s.Save(t.Context()) },
		"a Logout":           func(s *session.Session) { s.Logout(); s.Save(t.Context()) },
	} {
		for _, call := range []string{"Load", "Save", "Create"} { // the call that fails
			for _, handler := range []func(http.ResponseWriter, *http.Request, error){nil, own} {
				spy, isFailing, seen := newSpy(), false, new(accessLog)
				m := newManager(t, session.Options{Store: spy, ErrorHandler: handler})
				b := newBrowser(t, m.Handler(reception))
				b.get("/login?alice")
				page := members(m, func(s *session.Session) {
					before(s)
					isFailing = errors.Is(s.Err(), session.ErrStore)
				}, tellWhy)
				b.h = m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					seen.ResponseWriter = w
					page.ServeHTTP(seen, r)
					fmt.Fprint(w, "and a footer")
				}))
				spy.hook(func(_ context.Context, c, _ string) error {
					if c == call {
						return errDown
					}
					return nil
				})
				resp := b.get("/")
				got := fmt.Sprint(resp.StatusCode, body(resp), setsCookie(resp))
				want := "503Service Unavailable\nfalse"
				if handler != nil {
					want = "507ownfalse"
				}
				switch {
				case isFailing && (got != want || seen.status != 503):
					t.Errorf("%s, %s fails: %q, want %q; a middleware sees %d", what, call, got, want, seen.status)
				case isFailing:
					failed++
				case call == "Load" || seen.status == 503:
					t.Errorf("%s, %s fails: %q", what, call, got)
				}
			}
		}
	}
	if failed < 18 {
		t.Errorf("the store failed %d times", failed)
	}
}

// TestRequireUserOfItsManager checks that RequireUser uses its own Manager if several are
// nested, and panics outside of Handler.
func TestRequireUserOfItsManager(t *testing.T) {
	outer := newManager(t, session.Options{Cookie: session.CookieOptions{Name: "__Host-outer"}})
	inner := newManager(t, session.Options{})
	both := func(h http.Handler) http.Handler { return outer.Handler(inner.Handler(h)) }
	b := newBrowser(t, both(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		outer.From(r.Context()).Login("alice")
	})))
	b.get("/")
	for m, want := range map[*session.Manager]int{outer: 200, inner: 401} {
		b.h = both(m.RequireUser(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), nil))
		if resp := b.get("/"); resp.StatusCode != want {
			t.Errorf("%s, want %d", resp.Status, want)
		}
	}
	defer func() {
		if v := fmt.Sprint(recover()); !strings.Contains(v, "this Manager's Handler") {
			t.Errorf("outside Handler: %s", v)
		}
	}()
	inner.RequireUser(tellWhy, tellWhy).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
}

// accessLog is the writer of a middleware that records the status.
type accessLog struct {
	http.ResponseWriter
	status int
}

func (w *accessLog) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// TestManyLoginsOfOneUser: promises 11 and 21. After any number of concurrent logins of one
// user, in any number of processes and over a slow store, MaxPerUser sessions are left. Each
// login costs fewer than eight store calls, and a login whose session was ended sets no cookie.
func TestManyLoginsOfOneUser(t *testing.T) {
	for _, c := range []struct {
		n, most, processes int
		slow               time.Duration
	}{
		{2, 1, 1, time.Millisecond}, {10, 1, 1, time.Millisecond}, {50, 3, 1, time.Millisecond}, {600, 1, 1, time.Millisecond},
		{600, 1, 1, 15 * time.Millisecond}, {600, 3, 1, 200 * time.Millisecond}, {600, 3, 3, 15 * time.Millisecond}, {50, 1, 2, 200 * time.Millisecond},
	} {
		t.Run(fmt.Sprintf("%d logins, %d, %d processes, %v", c.n, c.most, c.processes, c.slow), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				spy := newSpy()
				var hs []*browser
				for range c.processes {
					hs = append(hs, newBrowser(t, newManager(t, session.Options{Store: spy, MaxPerUser: c.most}).Handler(clockRoutes)))
				}
				for range c.most { // sessions that exist before the logins
					newBrowser(t, hs[0].h).get("/login")
				}
				time.Sleep(time.Second)
				slowStore(spy, c.slow)
				before := spy.count("")
				var all sync.WaitGroup
				cookies := make([]string, c.n)
				for i := range c.n {
					all.Go(func() {
						b := newBrowser(t, hs[i%c.processes].h)
						if resp := b.get("/login"); resp.StatusCode != 200 {
							t.Error(resp.Status)
						}
						cookies[i] = b.cookie()
					})
				}
				all.Wait()
				if calls := spy.count("") - before; calls >= 8*c.n {
					t.Errorf("%d calls of the store for %d logins", calls, c.n)
				}
				spy.hook(nil)
				listed, err := spy.Store.List(t.Context(), "alice")
				if err != nil || len(listed) != c.most {
					t.Errorf("%d sessions are left (%v), MaxPerUser is %d", len(listed), err, c.most)
				}
				in := 0
				for _, cookie := range cookies {
					if cookie == "" {
						continue
					}
					if body(hs[0].replay(cookie).get("/look")) == "alice" {
						in++
					}
				}
				if in != c.most {
					t.Errorf("%d browsers are logged in, want %d", in, c.most)
				}
			})
		})
	}
}

// TestLoginAfterTheClockWasSetBack: promise 11. If the clock was set back, or another process
// is ahead, sessions with a later LastSeen do not end the newest login.
func TestLoginAfterTheClockWasSetBack(t *testing.T) {
	for _, most := range []int{1, 2} {
		for _, ahead := range []time.Duration{6 * time.Second, time.Hour, day} {
			t.Run(fmt.Sprint(most, " ", ahead), func(t *testing.T) {
				inBubble(t, session.Options{MaxPerUser: most}, func(t *testing.T, spy *spyStore, m *session.Manager) {
					future := time.Now().Add(ahead)
					for i := range 2 {
						r := memoryRecord(fmt.Sprint("future", i), "alice", 0)
						r.Data = []byte(`{"session.key":"0123456789012345678901"}`)
						r.Created, r.LastSeen, r.Deadline, r.Expires = future, future, future.Add(day), future.Add(day)
						put(t, spy.Store, r)
					}
					var all []*browser
					for range most {
						b := newBrowser(t, m.Handler(clockRoutes))
						b.get("/login")
						all = append(all, b)
					}
					for i, b := range all {
						if got := body(b.get("/look")); got != "alice" && i == len(all)-1 {
							t.Errorf("the last login is logged in as %q", got)
						}
					}
					if listed, err := spy.Store.List(t.Context(), "alice"); err != nil || len(listed) != most {
						t.Errorf("%d sessions, %v", len(listed), err)
					}
				})
			})
		}
	}
}

// TestListOfALoginFails checks that a login that waits for another's List gives up at its own
// deadline, that a List that fails or panics delays no other login, and that all these logins
// succeed.
func TestListOfALoginFails(t *testing.T) {
	for what, fails := range map[string]func(ctx context.Context) error{
		"hangs":  func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"fails":  func(ctx context.Context) error { return errDown },
		"panics": func(ctx context.Context) error { panic("oh") },
	} {
		inBubble(t, session.Options{MaxPerUser: 1}, func(t *testing.T, spy *spyStore, m *session.Manager) {
			h := m.Handler(clockRoutes)
			spy.hook(func(ctx context.Context, call, id string) error {
				if call == "List" {
					return fails(ctx)
				}
				return nil
			})
			var all sync.WaitGroup
			for range 10 {
				all.Go(func() {
					defer func() { recover() }()
					w := httptest.NewRecorder()
					h.ServeHTTP(w, httptest.NewRequest("GET", "https://localhost/login", nil))
					if w.Code != 200 || len(w.Result().Cookies()) != 1 {
						t.Errorf("List %s: %d %v", what, w.Code, w.Header())
					}
				})
			}
			all.Wait()
			spy.hook(nil)
			time.Sleep(time.Second)
			b := newBrowser(t, h)
			b.get("/login")
			listed, err := spy.Store.List(t.Context(), "alice")
			if got := body(b.get("/look")); got != "alice" || err != nil || len(listed) != 1 {
				t.Errorf("after a List that %s: %q, %d sessions, %v", what, got, len(listed), err)
			}
		})
	}
}

// TestLimitOverASlowList checks that the limit holds for logins that arrive during the List of
// another login, even if they have waited for it for most of StoreTimeout and their own List
// takes as long.
func TestLimitOverASlowList(t *testing.T) {
	for _, takes := range []time.Duration{time.Second, 3 * time.Second, 4900 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			const most = 2
			spy := newSpy()
			var log events
			m := newManager(t, session.Options{Store: spy, MaxPerUser: most, OnEvent: log.on})
			spy.hook(func(ctx context.Context, call, id string) error {
				if call != "List" {
					return nil
				}
				select {
				case <-time.After(takes):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			var all sync.WaitGroup
			for i := range 30 {
				all.Go(func() {
					time.Sleep(time.Duration(i) * 100 * time.Millisecond)
					newBrowser(t, m.Handler(clockRoutes)).get("/login")
				})
			}
			all.Wait()
			listed, err := spy.Store.List(t.Context(), "alice")
			if err != nil || len(listed) != most || log.count(session.EventStoreFailed) != 0 {
				t.Errorf("a list takes %v: %d sessions are left (%v), events %v", takes, len(listed), err, log.all)
			}
		})
	}
}

// TestEndsSeveralAtOnce checks that RevokeAll, RevokeOthers and MaxPerUser end 16 sessions at a
// time, and no more.
func TestEndsSeveralAtOnce(t *testing.T) {
	for call, end := range manyEndings {
		inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
			logInOften(t, m, 100)
			var mu sync.Mutex
			var now, most int
			spy.hook(func(_ context.Context, call, _ string) error {
				if call == "Save" {
					mu.Lock()
					now++
					most = max(most, now)
					mu.Unlock()
					time.Sleep(100 * time.Millisecond)
					mu.Lock()
					now--
					mu.Unlock()
				}
				return nil
			})
			err := end(t, m, spy)
			if listed, _ := m.List(t.Context(), "alice"); err != nil || most != 16 || len(listed) > 1 {
				t.Errorf("%s: %v, %d endings at once, want 16; %d sessions are left", call, err, most, len(listed))
			}
		})
	}
}

// TestEndsTheOthersDespiteFailures checks that sessions that cannot be ended prevent no other
// session from ending, and that all failures are reported.
func TestEndsTheOthersDespiteFailures(t *testing.T) {
	for call, end := range manyEndings {
		inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
			logInOften(t, m, 100)
			listed, err := m.List(t.Context(), "alice")
			if err != nil {
				t.Fatal(err)
			}
			stays := map[string]error{}
			for i, in := range listed {
				if i%3 == 1 {
					stays[in.ID] = fmt.Errorf("no answer for %s", in.ID)
				}
			}
			spy.hook(func(_ context.Context, call, id string) error {
				if call == "Save" {
					return stays[id]
				}
				return nil
			})
			err = end(t, m, spy)
			spy.hook(nil)
			if !errors.Is(err, session.ErrStore) {
				t.Errorf("%s: %v", call, err)
			}
			for id, failure := range stays {
				if !errors.Is(err, failure) {
					t.Errorf("%s: the error does not contain that of %s", call, id)
				}
			}
			if listed, _ = m.List(t.Context(), "alice"); len(listed) < len(stays) || len(listed) > len(stays)+1 {
				t.Errorf("%s: %d sessions are left, want %d and the one that stays", call, len(listed), len(stays))
			}
		})
	}
}

// TestEndsNothingOverADeadStore checks that endings stop soon if the store has failed: if it
// hangs, after twice StoreTimeout.
func TestEndsNothingOverADeadStore(t *testing.T) {
	for call, end := range manyEndings {
		for _, hangs := range []bool{false, true} {
			inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
				logInOften(t, m, 100)
				before, began := spy.count("Save"), time.Now()
				spy.hook(func(ctx context.Context, call, _ string) error {
					switch {
					case call != "Save":
						return nil
					case !hangs:
						return errDown
					}
					<-ctx.Done()
					return ctx.Err()
				})
				err := end(t, m, spy)
				took, tries := time.Since(began), spy.count("Save")-before
				if !errors.Is(err, session.ErrStore) || tries < 16 || tries > 31 || took > 10*time.Second {
					t.Errorf("%s, hangs: %v: %v, %d calls in %v", call, hangs, err, tries, took)
				}
				spy.hook(nil)
			})
		}
	}
}

// manyEndings are ways to end all sessions of alice but one at most. Each returns what has failed.
var manyEndings = map[string]func(t *testing.T, m *session.Manager, spy *spyStore) error{
	"RevokeAll": func(t *testing.T, m *session.Manager, _ *spyStore) error { return m.RevokeAll(t.Context(), "alice") },
	"RevokeOthers": func(t *testing.T, m *session.Manager, _ *spyStore) (err error) {
		newBrowser(t, m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			s.Login("alice")
			if err := s.Save(r.Context()); err != nil {
				t.Error(err)
			}
			err = m.RevokeOthers(r.Context(), s)
		}))).get("/")
		return err
	},
	"MaxPerUser": func(t *testing.T, m *session.Manager, spy *spyStore) error {
		var failed error
		one := newManager(t, session.Options{Store: spy, MaxPerUser: 1, OnEvent: func(_ context.Context, e session.Event) { failed = errors.Join(failed, e.Err) }})
		newBrowser(t, one.Handler(clockRoutes)).get("/login")
		return failed
	},
}

// logInOften logs alice in n times.
func logInOften(t *testing.T, m *session.Manager, n int) {
	for range n {
		newBrowser(t, m.Handler(clockRoutes)).get("/login")
		time.Sleep(time.Second) // so that no session is as new as the next one
	}
	time.Sleep(time.Minute)
}

// TestPanicWhileManyEnd checks that RevokeAll passes a panic of the store on, and reports the
// sessions that it has ended.
func TestPanicWhileManyEnd(t *testing.T) {
	var told events
	inBubble(t, session.Options{OnEvent: told.on}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		logInOften(t, m, 40)
		saves := 0
		spy.hook(func(_ context.Context, call, _ string) error {
			spy.mu.Lock()
			defer spy.mu.Unlock()
			if call == "Save" {
				if saves++; saves == 20 {
					panic("the store panics")
				}
			}
			return nil
		})
		func() {
			defer func() {
				if v := recover(); v != "the store panics" {
					t.Errorf("the panic is %v", v)
				}
			}()
			_ = m.RevokeAll(t.Context(), "alice")
		}()
		spy.hook(nil)
		listed, err := m.List(t.Context(), "alice")
		if n := told.count(session.EventRevoked); err != nil || n < 19 || n != 40-len(listed) {
			t.Errorf("%d events, %d of 40 sessions are left: %v", n, len(listed), err)
		}
	})
}
