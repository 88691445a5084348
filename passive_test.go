package session_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

// passiveRoutes do what a poll of a page may do. The clocks are those of inBubble: 20 minutes
// idle, 2 hours absolute.
var passiveRoutes = routes{
	"read":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.User() },
	"write": func(w http.ResponseWriter, r *http.Request, s *session.Session) { name.Set(s, time.Now().String()) },
	"update": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		visits.Update(s, func(n int) int { return n + 1 })
	},
	"flash": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.AddFlash("info", "x") },
	"late": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		fmt.Fprint(w, "x")
		name.Set(s, time.Now().String())
	},
	"save": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		name.Set(s, time.Now().String())
		s.Save(r.Context())
	},
	"save nothing": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Save(r.Context()) },
	"reload":       func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Reload(r.Context()) },
	"renew":        func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Renew() },
}

// TestPassive checks that a passive request moves neither LastSeen nor the idle end, whatever
// it changes, and that every other request moves both.
func TestPassive(t *testing.T) {
	for step, do := range passiveRoutes {
		t.Run(step, func(t *testing.T) {
			inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
				isPassive, first := false, false
				b := newBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					s := session.From(r.Context())
					if isPassive && first {
						s.MarkPassive()
					}
					if r.URL.Path == "/login" {
						s.Login("alice")
						return
					}
					seen, end := s.LastSeen(), s.Expires()
					if isPassive && !first {
						s.MarkPassive()
					}
					do(w, r, s)
					if moved := !s.LastSeen().Equal(seen) || !s.Expires().Equal(end); isPassive && moved {
						t.Errorf("in the request itself: seen %v later, the end %v later", s.LastSeen().Sub(seen), s.Expires().Sub(end))
					}
				})))
				record := func() *session.Record {
					rs, err := spy.Store.List(t.Context(), "alice")
					if err != nil || len(rs) != 1 {
						t.Fatal(rs, err)
					}
					return rs[0]
				}
				b.get("/login")
				before := record()
				isPassive = true
				for _, first = range []bool{true, false} { // the order of the calls
					time.Sleep(5 * minute)
					b.get("/")
					if now := record(); !now.LastSeen.Equal(before.LastSeen) || !now.Expires.Equal(before.Expires) {
						t.Errorf("seen %v later, the end %v later", now.LastSeen.Sub(before.LastSeen), now.Expires.Sub(before.Expires))
					}
				}
				if step != "read" && step != "reload" && step != "save nothing" && record().Version == before.Version {
					t.Error("nothing was stored")
				}
				isPassive = false
				b.get("/")
				if now := record(); now.LastSeen.Sub(before.LastSeen) != 10*minute || now.Expires.Sub(before.Expires) != 10*minute {
					t.Errorf("by use: seen %v later, the end %v later", now.LastSeen.Sub(before.LastSeen), now.Expires.Sub(before.Expires))
				}
			})
		})
	}
}

// TestPassivePolls checks that a page that polls every minute does not keep its session alive,
// and can ask for the time left without moving the end.
func TestPassivePolls(t *testing.T) {
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		b := newBrowser(t, m.Handler(routes{
			"/login": clockRoutes["/login"],
			"/left": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				s.MarkPassive()
				if s.User() != "" {
					fmt.Fprint(w, time.Until(s.Expires()))
				}
			},
		}))
		b.get("/login")
		for left := 19 * minute; left > 0; left -= minute {
			time.Sleep(minute)
			if got := body(b.get("/left")); got != left.String() {
				t.Fatalf("%s are left, want %v", got, left)
			}
		}
		time.Sleep(minute)
		if got := body(b.get("/left")); got != "" {
			t.Errorf("%s are left after the end", got)
		}
		if n := spy.count("Touch"); n > 0 {
			t.Errorf("%d touches", n)
		}
	})
}

// TestPassiveLogin checks that a Login counts as use in a passive request too, and that
// Remember works.
func TestPassiveLogin(t *testing.T) {
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		b := newBrowser(t, m.Handler(routes{
			"/login": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				s.MarkPassive()
				s.Login("alice")
			},
			"/remember": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				s.MarkPassive()
				s.Remember(30 * day)
			},
			"/left": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				s.MarkPassive()
				fmt.Fprint(w, time.Until(s.Expires()), time.Since(s.LastSeen()))
			},
		}))
		for range 2 { // another user's Login, and the same user's
			b.get("/login")
			if got, want := body(b.get("/left")), "20m0s 0s"; got != want {
				t.Errorf("after the login: %s, want %s", got, want)
			}
			time.Sleep(10 * minute)
		}
		b.get("/remember")
		if got, want := body(b.get("/left")), "720h0m0s 10m0s"; got != want {
			t.Errorf("remembered: %s, want %s", got, want)
		}
	})
}

// TestPassiveCostsNothing checks that MarkPassive alone does not load the session.
func TestPassiveCostsNothing(t *testing.T) {
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy})
	b := newBrowser(t, m.Handler(routes{
		"/login": clockRoutes["/login"],
		"/":      func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.MarkPassive() },
	}))
	b.get("/login")
	before := spy.count("")
	if resp := b.get("/"); spy.count("") != before || len(resp.Header) > 0 {
		t.Errorf("%d calls of the store, header %v", spy.count("")-before, resp.Header)
	}
}

// TestPassiveKeepsAUse checks that a use by another request is not lost if a poll that had
// loaded the session before stores its changes afterwards, or if an operator edits the session.
func TestPassiveKeepsAUse(t *testing.T) {
	fetch := func(context.Context, grant) (grant, error) { return grant{1, time.Now().Add(time.Hour)}, nil }
	add := func(n int) int { return n + 1 }
	for step, change := range map[string]func(s *session.Session, w http.ResponseWriter, r *http.Request){
		"update": func(s *session.Session, w http.ResponseWriter, r *http.Request) { visits.Update(s, add) },
		"flash":  func(s *session.Session, w http.ResponseWriter, r *http.Request) { s.AddFlash("info", "x") },
		"refresh": func(s *session.Session, w http.ResponseWriter, r *http.Request) {
			grants.Refresh(r.Context(), s, grant.fresh, fetch)
		},
		"renew": func(s *session.Session, w http.ResponseWriter, r *http.Request) { s.Renew() },
		"now": func(s *session.Session, w http.ResponseWriter, r *http.Request) {
			visits.UpdateNow(r.Context(), s, add)
		},
		"nothing": func(s *session.Session, w http.ResponseWriter, r *http.Request) {},
		"save": func(s *session.Session, w http.ResponseWriter, r *http.Request) {
			visits.Set(s, 1)
			s.Save(r.Context())
		},
		"late": func(s *session.Session, w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "x"); visits.Set(s, 1) },
		"and more": func(s *session.Session, w http.ResponseWriter, r *http.Request) {
			visits.Set(s, 1)
			s.Save(r.Context())
			visits.Set(s, 2)
		},
		"edit": nil,
	} {
		t.Run(step, func(t *testing.T) {
			inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
				loaded, goOn := make(chan struct{}), make(chan struct{})
				b := newBrowser(t, m.Handler(routes{
					"/login": clockRoutes["/login"],
					"/click": func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, s.User()) },
					"/poll": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
						if change != nil {
							s.MarkPassive()
							s.User()
							close(loaded)
							<-goOn
							change(s, w, r)
							return
						}
						list, err := m.List(r.Context(), "alice")
						if err != nil || len(list) != 1 {
							t.Error(list, err)
						}
						close(loaded)
						<-goOn
						for _, info := range list {
							if err := m.Edit(r.Context(), "alice", info.ID, func(s *session.Session) { visits.Set(s, 1) }); err != nil {
								t.Error(err)
							}
						}
					},
				}))
				b.get("/login")
				time.Sleep(19 * minute) // of 20
				poll := make(chan struct{})
				go func() { defer close(poll); b.get("/poll") }()
				<-loaded
				time.Sleep(minute / 2)
				click := time.Now()
				if got := body(b.get("/click")); got != "alice" {
					t.Fatalf("logged in as %q, want alice", got)
				}
				close(goOn)
				<-poll
				records, err := spy.Store.List(t.Context(), "alice")
				if err != nil || len(records) != 1 {
					t.Fatal(records, err)
				}
				if r := records[0]; !r.LastSeen.Equal(click) || !r.Expires.Equal(click.Add(20*minute)) {
					t.Errorf("the click was %v ago, the session is stored as seen %v ago, with %v left", time.Since(click), time.Since(r.LastSeen), time.Until(r.Expires))
				}
				time.Sleep(19 * minute)
				if got := body(b.get("/click")); got != "alice" {
					t.Errorf("19 minutes after a click, of 20: logged in as %q, want alice", got)
				}
			})
		})
	}
}
