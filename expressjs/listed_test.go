package expressjs_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
	"github.com/redis/go-redis/v9"
)

const annAtExpress = `{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"userId":"ann","x":1}`

// TestRevokeAllAfterExpress checks that a session that was logged in at Express, and used at Go
// once since, is in the list of the user, and that RevokeAll ends it.
func TestRevokeAllAfterExpress(t *testing.T) {
	onShelves(t, expressjs.Options{UserMember: "userId"}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		for _, record := range []string{annAtExpress, strings.Replace(annAtExpress, "ann", "bob", 1)} {
			user := record[strings.Index(record, `"userId":"`)+10:][:3]
			s.put(sid, record, 24*time.Hour-time.Minute)
			for range 3 {
				in(t, m, sid, func(s *session.Session) {
					if s.User() != user {
						t.Errorf("the user is %q, want %q", s.User(), user)
					}
				})
			}
		}
		if list, err := m.List(t.Context(), "bob"); err != nil || len(list) != 1 {
			t.Errorf("%d sessions, %v", len(list), err)
		}
		if list, err := m.List(t.Context(), "ann"); err != nil || len(list) != 0 {
			t.Errorf("the previous user has %d sessions, %v, want none", len(list), err)
		}
		if err := m.RevokeAll(t.Context(), "bob"); err != nil {
			t.Error(err)
		}
		in(t, m, sid, func(s *session.Session) {
			if s.User() != "" {
				t.Errorf("after RevokeAll the user is %q, want none", s.User())
			}
		})
	})
}

// TestIndexForgets checks that the index of a user keeps only sessions that have not ended more
// than 30 days ago, by the ends that Go knows.
func TestIndexForgets(t *testing.T) {
	store, client := redisStore(t, expressjs.Options{UserMember: "userId"})
	s, m := redisShelf(t, store, client), service(t, store, nil)
	s.put(sid, annAtExpress, time.Hour)
	in(t, m, sid, func(s *session.Session) { s.User() })
	const key = "go-session:u:sess:ann"
	client.ZAdd(t.Context(), key,
		redis.Z{Member: "ended 31 days ago", Score: float64(time.Now().Add(-31 * 24 * time.Hour).UnixMilli())},
		redis.Z{Member: "ended 29 days ago", Score: float64(time.Now().Add(-29 * 24 * time.Hour).UnixMilli())})
	s.put("another", annAtExpress, 2*time.Hour)
	in(t, m, "another", func(s *session.Session) { s.User() })
	got := client.ZRange(t.Context(), key, 0, -1).Val()
	slices.Sort(got)
	if want := []string{"another", "ended 29 days ago", sid}; !slices.Equal(got, want) {
		t.Errorf("the index is %q", got)
	}
}

// TestSavesKeepASessionListed checks that the index of a user in Redis keeps a session as long as
// it can live, even if it is only saved and never touched.
func TestSavesKeepASessionListed(t *testing.T) {
	const day = 24 * time.Hour
	store, client := redisStore(t, expressjs.Options{UserMember: "userId"})
	listed := func(id string, want time.Time) {
		t.Helper()
		score := client.ZScore(t.Context(), "go-session:u:sess:ann", id).Val()
		life := client.PTTL(t.Context(), "go-session:u:sess:ann").Val()
		if score < float64(want.UnixMilli()) || life < time.Until(want) {
			t.Errorf("%s is listed until %v, the index lives for %v, want %v", id, time.UnixMilli(int64(score)), life, want)
		}
	}
	now := time.Now().Truncate(time.Millisecond)
	r := &session.Record{ID: "go", User: "ann", Data: []byte(`{"userId":"ann"}`), Created: now, LastSeen: now, Expires: now.Add(time.Hour), Deadline: now.Add(90 * day), Version: 1}
	if err := store.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	listed("go", r.Deadline)
	if err := store.Touch(t.Context(), "go", now, now.Add(2*time.Hour)); err != nil {
		t.Error(err)
	}
	listed("go", r.Deadline)
	s := redisShelf(t, store, client)
	s.put(sid, annAtExpress, time.Hour)
	for range 3 { // the first Save stores what only Go stores
		is, err := store.Load(t.Context(), sid)
		if err != nil {
			t.Fatal(err)
		}
		old := is.Version
		is.Expires, is.Version = is.Expires.Add(2*day), old+1
		if err := store.Save(t.Context(), is, old); err != nil {
			t.Fatal(err)
		}
		listed(sid, is.Expires)
	}
}

// TestLateListing checks that a late entry in the list of the previous user does not make the
// session one of that user again.
func TestLateListing(t *testing.T) {
	store, pool := postgresStore(t, expressjs.Options{UserMember: "userId"})
	s, m := postgresShelf(t, store, pool), service(t, store, nil)
	s.put(sid, strings.Replace(annAtExpress, "ann", "bob", 1), time.Hour)
	in(t, m, sid, func(s *session.Session) { session.NewKey[int]("x").Set(s, 3) })
	if err := store.ListForTest(t.Context(), "ann", sid, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	in(t, m, sid, func(s *session.Session) {
		if s.User() != "bob" {
			t.Errorf("the user is %q, want bob", s.User())
		}
	})
}

// TestFarEnds checks that an end farther away than a time.Duration reaches works as other ends.
func TestFarEnds(t *testing.T) {
	store, client := redisStore(t, expressjs.Options{UserMember: "userId"})
	m := service(t, store, nil)
	for _, years := range []int64{100, 300, 600, 7900} {
		for _, lasting := range []bool{false, true} {
			seconds := years * 365 * 86400
			record := strings.Replace(annAtExpress, `"originalMaxAge":null,"expires":null`, fmt.Sprintf(`"originalMaxAge":%d,"expires":"9926-01-01T00:00:00.000Z"`, seconds*1000), 1)
			args := []any{"SET", "sess:" + sid, record}
			if !lasting {
				args = append(args, "EX", seconds)
			}
			if err := client.Do(context.Background(), args...).Err(); err != nil {
				t.Fatal(err)
			}
			in(t, m, sid, func(s *session.Session) {
				if s.User() != "ann" || s.Err() != nil || time.Until(s.Expires()) < 24*time.Hour {
					t.Errorf("%d years: %q, %v, until %v", years, s.User(), s.Err(), s.Expires())
				}
			})
			if err := store.Delete(t.Context(), sid); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestEditOfASessionOfExpress checks that Edit changes a session that Express has made, and keeps
// what it does not change, with the user and the end, byte for byte.
func TestEditOfASessionOfExpress(t *testing.T) {
	onShelves(t, expressjs.Options{UserMember: "userId"}, func(t *testing.T, s *shelf) {
		m, x := service(t, s.store, nil), session.NewKey[int]("x")
		s.put(sid, annAtExpress, time.Hour)
		if err := m.Edit(t.Context(), "ann", sid, func(s *session.Session) {
			if s.User() != "ann" || x.Get(s) != 1 {
				t.Errorf("in Edit the user is %q and x is %d", s.User(), x.Get(s))
			}
			x.Set(s, 2)
		}); err != nil {
			t.Fatal(err)
		}
		if got, life := s.get(sid); got != strings.Replace(annAtExpress, `"x":1`, `"x":2`, 1) || life <= 0 || life > time.Hour {
			t.Errorf("after Edit the record is %s for %v", got, life)
		}
		if err := m.Edit(t.Context(), "bob", sid, func(s *session.Session) { t.Error("Edit called the function for the session of another user") }); err != session.ErrEnded {
			t.Errorf("Edit for another user: %v, want ErrEnded", err)
		}
		in(t, m, sid, func(s *session.Session) { s.User() }) // Go adds the session to the list of its user
		if list, err := m.List(t.Context(), "ann"); err != nil || len(list) != 1 {
			t.Errorf("%d sessions, %v", len(list), err)
		} else if got, ok := x.Of(list[0]); got != 2 || !ok {
			t.Errorf("the listed session has x %d, %v", got, ok)
		}
	})
}
