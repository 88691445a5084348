package expressjs_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
	"github.com/coatcheck/session/sessiontest"
)

// TestEndedStaysEnded checks that an ended session stays ended if a request of Express that had
// loaded the session before writes the record again, after the tombstone of the Manager has expired
// (a minute). Each method that sees the record deletes it, every time.
func TestEndedStaysEnded(t *testing.T) {
	onShelves(t, expressjs.Options{UserMember: "userId"}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		for how, edit := range map[string]func(r *session.Record){
			"a tombstone": func(r *session.Record) {
				r.User, r.Data = "", []byte(`{"session.ended":"revoked"}`)
				r.Deadline = time.Now().Add(20 * time.Millisecond).Truncate(time.Millisecond)
			},
			"its Deadline": func(r *session.Record) { r.Deadline = time.Now().Truncate(time.Millisecond) },
		} {
			id := strings.ReplaceAll(how, " ", "-")
			s.put(id, annAtExpress, 24*time.Hour)
			r, err := s.store.Load(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			ended := *r
			ended.Version++
			edit(&ended)
			ended.Expires = ended.Deadline
			if err := s.store.Save(t.Context(), &ended, r.Version); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Until(ended.Deadline)) // the tombstone of a Manager ends after a minute
			for range 2 {
				for by, see := range map[string]func() error{
					"Load":   func() error { _, err := s.store.Load(t.Context(), id); return err },
					"Touch":  func() error { return s.store.Touch(t.Context(), id, time.Now(), time.Now().Add(time.Hour)) },
					"Save":   func() error { return s.store.Save(t.Context(), &ended, r.Version) },
					"Delete": func() error { return m.Revoke(t.Context(), "ann", id) },
					"List": func() error {
						list, err := s.store.List(t.Context(), "ann")
						if len(list) > 0 {
							t.Errorf("%s: List returned the ended session %+v", how, list[0])
						}
						return err
					},
					"a request": func() error {
						in(t, m, id, func(s *session.Session) {
							if s.ID() != "" || s.User() != "" {
								t.Errorf("%s: the request has the ended session %q of %q", how, s.ID(), s.User())
							}
						})
						return nil
					},
				} {
					if got, _ := s.get(id); got != "" {
						t.Errorf("%s: the record is still stored: %s", how, got)
					}
					s.keep(id, time.Minute)
					s.put(id, strings.Replace(annAtExpress, `"x":1`, `"x":2`, 1), 24*time.Hour)
					if err := see(); err != nil && err != session.ErrNotFound {
						t.Errorf("%s: %s: %v", how, by, err)
					}
					if got, _ := s.get(id); got != "" {
						t.Errorf("%s: after %s the record is still stored: %s", how, by, got)
					}
					if d := s.kept(id); d > 25*time.Hour || d < 25*time.Hour-5*time.Minute {
						t.Errorf("%s: after %s Go remembers the end for %v, want 25h", how, by, d)
					}
				}
			}
		}
	})
}

// TestEndedIsRemembered checks that Go remembers the end of a session for an hour after the later
// of its absolute end and the end of a record that is written now.
func TestEndedIsRemembered(t *testing.T) {
	onShelves(t, expressjs.Options{UserMember: "userId", Cookie: expressjs.Cookie{MaxAge: 2 * time.Hour}}, func(t *testing.T, s *shelf) {
		for name, c := range map[string]struct {
			lifetime, want time.Duration
		}{
			"absolute end":     {48 * time.Hour, 49 * time.Hour},
			"the record's end": {2 * time.Hour, 3 * time.Hour},
		} {
			m := service(t, s.store, func(o *session.Options) { o.Lifetime, o.IdleTimeout = c.lifetime, 2*time.Hour })
			b := sessiontest.NewBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				if r.URL.Path == "/logout" {
					s.Logout()
				} else {
					s.Login("ann")
				}
			})))
			b.Get("https://example.test/login")
			list, err := s.store.List(t.Context(), "ann")
			if err != nil || len(list) != 1 {
				t.Fatal(len(list), err)
			}
			b.Get("https://example.test/logout")
			if d := s.kept(list[0].ID); d > c.want || d < c.want-5*time.Minute {
				t.Errorf("%s: Go remembers the end for %v, want %v", name, d, c.want)
			}
		}
	})
}

// TestLiveIsForgotten checks that what only Go stores of a live session is kept as long as the
// record, and for a login in Redis until no record of the session can exist past its absolute end.
func TestLiveIsForgotten(t *testing.T) {
	onShelves(t, expressjs.Options{UserMember: "userId"}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, func(o *session.Options) { o.Lifetime = 48 * time.Hour })
		begin := func(f func(s *session.Session)) (id string) {
			r, _ := http.NewRequest("GET", "https://example.test/", nil)
			sessiontest.Do(t, m, r, f)
			sessiontest.Do(t, m, r, func(s *session.Session) { id = s.ID() })
			return id
		}
		s.put(sid, annAtExpress, time.Hour)
		in(t, m, sid, func(s *session.Session) { session.NewKey[int]("x").Set(s, 2) })
		anonymous := begin(func(s *session.Session) { session.NewKey[int]("x").Set(s, 1) })
		login := begin(func(s *session.Session) { s.Login("ann") })
		for _, id := range []string{sid, anonymous, login} {
			_, life := s.get(id)
			longest := life + time.Second
			if id == login && strings.HasSuffix(t.Name(), "Redis") {
				longest = 48*time.Hour + life + time.Hour
			}
			if d := s.kept(id); d > longest || d < longest-time.Minute {
				t.Errorf("%s: kept for %v, the record for %v", id, d, life)
			}
			s.keep(id, time.Minute) // a use restores the time
			if err := s.store.Touch(t.Context(), id, time.Now(), time.Now().Add(30*time.Hour)); err != nil {
				t.Error(err)
			}
			if _, life := s.get(id); s.kept(id) < life-time.Minute || life < 29*time.Hour {
				t.Errorf("%s: after a touch kept for %v, the record for %v", id, s.kept(id), life)
			}
		}
	})
}

// TestSweep checks that Sweep deletes what only Go stores of sessions that no longer exist, and of
// no others.
func TestSweep(t *testing.T) {
	store, pool := postgresStore(t, expressjs.Options{UserMember: "userId"})
	s, m := postgresShelf(t, store, pool), service(t, store, nil)
	for _, id := range []string{"live", "expired", "dropped", "ended", "long-ended", "rewritten"} {
		s.put(id, annAtExpress, time.Hour)
		in(t, m, id, func(s *session.Session) { session.NewKey[int]("x").Set(s, 2) })
		s.keep(id, -time.Minute)
	}
	if _, err := pool.Exec(t.Context(), `UPDATE "session" SET expire = to_timestamp($1::float8) WHERE sid = 'expired'`, float64(time.Now().Add(-time.Minute).Unix())); err != nil {
		t.Fatal(err)
	}
	s.drop("dropped")
	for _, id := range []string{"ended", "long-ended", "rewritten"} {
		in(t, m, id, (*session.Session).Logout)
	}
	s.keep("long-ended", -time.Minute)
	s.keep("rewritten", -time.Minute)
	s.put("rewritten", annAtExpress, time.Hour)
	if n, err := store.Sweep(t.Context()); n != 1 || err != nil {
		t.Errorf("%d sessions, %v", n, err)
	}
	for id, want := range map[string]bool{"live": true, "expired": false, "dropped": false, "ended": true, "long-ended": false, "rewritten": true} {
		if got := s.kept(id) != notKept; got != want {
			t.Errorf("%s: Go's own row is kept: %v", id, got)
		}
	}
	in(t, m, "rewritten", func(s *session.Session) {
		if s.ID() != "" || s.User() != "" {
			t.Errorf("the request has the ended session %q of %q", s.ID(), s.User())
		}
	})
}
