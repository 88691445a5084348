package expressjs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
	"github.com/coatcheck/session/sessiontest"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
)

// A shelf gives a test access to the records as Express stores them.
type shelf struct {
	store session.Store
	put   func(id, record string, life time.Duration) // life < 0: the record never expires
	get   func(id string) (record string, life time.Duration)
	drop  func(id string)
	kept  func(id string) time.Duration    // remaining time for which what only Go stores is kept, or notKept
	keep  func(id string, d time.Duration) // sets that time
}

const notKept = time.Duration(math.MinInt64)

// onShelves runs a test over Redis and over PostgreSQL.
func onShelves(t *testing.T, o expressjs.Options, f func(t *testing.T, s *shelf)) {
	t.Run("Redis", func(t *testing.T) {
		t.Parallel()
		store, client := redisStore(t, o)
		f(t, redisShelf(t, store, client))
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		store, pool := postgresStore(t, o)
		f(t, postgresShelf(t, store, pool))
	})
}

func redisShelf(t *testing.T, store session.Store, client *redis.Client) *shelf {
	ctx := context.Background()
	check := func(err error) {
		t.Helper()
		if err != nil && err != redis.Nil {
			t.Error(err)
		}
	}
	return &shelf{store,
		func(id, record string, life time.Duration) {
			check(client.Set(ctx, "sess:"+id, record, max(0, life)).Err())
		},
		func(id string) (string, time.Duration) {
			record, err := client.Get(ctx, "sess:"+id).Result()
			check(err)
			life, err := client.PTTL(ctx, "sess:"+id).Result()
			check(err)
			return record, life
		},
		func(id string) { check(client.Del(ctx, "sess:"+id).Err()) },
		func(id string) time.Duration {
			ms, err := client.Do(ctx, "PTTL", expressjs.OwnKeyForTest("sess:"+id)).Int64()
			check(err)
			if ms == -2 {
				return notKept
			}
			return time.Duration(ms) * time.Millisecond
		},
		func(id string, d time.Duration) {
			check(client.PExpire(ctx, expressjs.OwnKeyForTest("sess:"+id), d).Err())
		},
	}
}

func postgresShelf(t *testing.T, store session.Store, pool *pgxpool.Pool) *shelf {
	ctx := context.Background()
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := pool.Exec(ctx, statement, args...); err != nil {
			t.Error(err)
		}
	}
	return &shelf{store,
		func(id, record string, life time.Duration) {
			exec(`INSERT INTO "session" (sess, expire, sid) SELECT $1, to_timestamp($2::float8), $3 ON CONFLICT (sid) DO UPDATE SET sess = $1, expire = to_timestamp($2::float8)`,
				record, float64(time.Now().Add(life.Abs()).UnixMilli())/1000, id)
		},
		func(id string) (record string, life time.Duration) {
			var ms int64
			if err := pool.QueryRow(ctx, `SELECT sess::text, round(extract(epoch FROM expire::timestamptz) * 1000)::bigint FROM "session" WHERE sid = $1`, id).Scan(&record, &ms); err != nil {
				return "", -2
			}
			return record, time.Until(time.UnixMilli(ms))
		},
		func(id string) { exec(`DELETE FROM "session" WHERE sid = $1`, id) },
		func(id string) time.Duration {
			var ms int64
			if err := pool.QueryRow(ctx, `SELECT until FROM session_go WHERE sid = $1`, id).Scan(&ms); err != nil {
				return notKept
			}
			return time.Until(time.UnixMilli(ms))
		},
		func(id string, d time.Duration) {
			exec(`UPDATE session_go SET until = $1 WHERE sid = $2`, time.Now().Add(d).UnixMilli(), id)
		},
	}
}

const secret = "keyboard cat"

// service returns the Manager of a Go service over the store, with the cookie connect.sid.
func service(t testing.TB, store session.Store, adapt func(*session.Options)) *session.Manager {
	t.Helper()
	tokens, err := expressjs.Tokens(secret)
	if err != nil {
		t.Fatal(err)
	}
	o := session.Options{Store: store, Tokens: tokens, IdleTimeout: 24 * time.Hour, StoreTimeout: time.Minute, Cookie: session.CookieOptions{Name: "connect.sid"}}
	if adapt != nil {
		adapt(&o)
	}
	return session.Must(session.New(&o))
}

// in runs f as a handler in the session of this id, and returns the response.
func in(t testing.TB, m *session.Manager, id string, f func(s *session.Session)) *http.Response {
	t.Helper()
	b := sessiontest.NewBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(session.From(r.Context())) })))
	r, _ := http.NewRequest("GET", "https://example.test/", nil)
	r.Header.Set("Cookie", "connect.sid="+cookieOf(t, id))
	return b.Do(r)
}

// cookieOf returns the cookie of an id.
func cookieOf(t testing.TB, id string) string {
	t.Helper()
	return expressjs.SignForTest(secret, id)
}

const sid = "r9uYVwCDIL-Qs_Ka2RXZxOFZSD8s1E9u"

// TestUntouchedMembers checks that a change by Go keeps the rest of the record, byte for byte, and
// that a request that changes nothing does not write.
func TestUntouchedMembers(t *testing.T) {
	const before = `{"2":1,"cookie":{"originalMaxAge":86400000,"expires":"2030-01-02T03:05:05.678Z","httpOnly":true,"path":"/","other":[1]},"big":9007199254740993,"f":1.0,"neg0":-0,"e":1e3,"lone":"\ud800","html":"<a href=\"&\">","z":{"b":1,"a":2},"\u006eame":"old","id":7,"__proto__":{"x":1}}`
	onShelves(t, expressjs.Options{}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		s.put(sid, before, 24*time.Hour)
		in(t, m, sid, func(s *session.Session) {
			if got := strings.Join(s.Names(), " "); got != "2 big e f html lone name neg0 z" {
				t.Error(got)
			}
			if got := session.NewKey[json.Number]("big").Get(s); got != "9007199254740993" {
				t.Error(got)
			}
			if got := session.NewKey[string]("html").Get(s); got != `<a href="&">` {
				t.Error(got)
			}
		})
		if got, _ := s.get(sid); got != before {
			t.Errorf("after a read the record is\n%s", got)
		}
		in(t, m, sid, func(s *session.Session) {
			session.NewKey[string]("name").Set(s, "new")
			session.NewKey[int]("added").Set(s, 5)
			session.NewKey[int]("f").Delete(s)
		})
		start := time.Now()
		got, life := s.get(sid)
		took := time.Since(start)
		want := before
		for _, c := range []struct{ old, new string }{
			{`"old"`, `"new"`}, {`"f":1.0,`, ``}, {`{"x":1}}`, `{"x":1},"added":5}`},
		} {
			want = strings.Replace(want, c.old, c.new, 1)
		}
		begin, end := strings.Index(got, `"expires":"`)+len(`"expires":"`), strings.Index(got, `","httpOnly"`)
		if end < begin {
			t.Fatal(got)
		}
		expires, err := time.Parse("2006-01-02T15:04:05.000Z", got[begin:end])
		if d := expires.Sub(start); err != nil || d > 24*time.Hour || d < 24*time.Hour-time.Minute || life > d+time.Second || life < d-took-time.Second {
			t.Errorf("cookie.expires in %v (%v), and the record lives for %v", d, err, life)
		}
		if got = strings.Replace(got, got[begin:end], "2030-01-02T03:05:05.678Z", 1); got != want {
			t.Errorf("after a write the record is\n%s\nwant\n%s", got, want)
		}
	})
}

// TestNewRecord checks that the record of a session that Go begins is the one that Express would
// write.
func TestNewRecord(t *testing.T) {
	for name, c := range map[string]struct {
		o    expressjs.Options
		want string
	}{
		"default":  {expressjs.Options{}, `{"cookie":{"originalMaxAge":null,"expires":null,"secure":true,"httpOnly":true,"path":"/","sameSite":"lax"},"views":1}`},
		"insecure": {expressjs.Options{Cookie: expressjs.Cookie{Insecure: true}}, `{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/","sameSite":"lax"},"views":1}`},
		"maxAge":   {expressjs.Options{Cookie: expressjs.Cookie{MaxAge: time.Hour}}, `{"cookie":{"originalMaxAge":3600000,"expires":"EXPIRES","secure":true,"httpOnly":true,"path":"/","sameSite":"lax"},"views":1}`},
		"all":      {expressjs.Options{Cookie: expressjs.Cookie{MaxAge: time.Hour, SameSite: "lax", Domain: "example.com", Path: "/app", Priority: "high", Partitioned: true}}, `{"cookie":{"originalMaxAge":3600000,"partitioned":true,"priority":"high","expires":"EXPIRES","secure":true,"httpOnly":true,"domain":"example.com","path":"/app","sameSite":"lax"},"views":1}`},
	} {
		onShelves(t, c.o, func(t *testing.T, s *shelf) {
			m := service(t, s.store, func(o *session.Options) { o.IdleTimeout = time.Hour })
			var id string
			r, _ := http.NewRequest("GET", "https://example.test/", nil)
			sessiontest.Do(t, m, r, func(s *session.Session) {
				session.NewKey[int]("views").Set(s, 1)
				if err := s.Save(t.Context()); err != nil {
					t.Error(err)
				}
				id = s.ID()
			})
			got, life := s.get(id)
			if i := strings.Index(got, `"expires":"`); i > 0 {
				i += len(`"expires":"`)
				got = got[:i] + "EXPIRES" + got[i+len("2030-01-02T03:05:05.678Z"):]
			}
			if got != c.want || life > time.Hour || life < time.Hour-time.Minute {
				t.Errorf("%s: the record is %s for %v", name, got, life)
			}
		})
	}
}

// TestTouch checks that the end of the key, and not the cookie in the record, decides when a
// session ends, and that a use moves that end by EXPIRE and does not change the record.
func TestTouch(t *testing.T) {
	onShelves(t, expressjs.Options{}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		for _, record := range []string{
			`{"cookie":{"originalMaxAge":86400000,"expires":"2029-01-01T00:00:00.000Z","httpOnly":true,"path":"/"},"x":1}`,
			`{"cookie":{"originalMaxAge":86400000,"expires":"2020-01-01T00:00:00.000Z","httpOnly":true,"path":"/"},"x":1}`,
			`{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"x":1}`,
			`{"cookie":{"originalMaxAge":false,"expires":false,"httpOnly":true,"path":"/"},"x":1}`,
			`{"cookie":{},"x":1}`,
		} {
			s.put(sid, record, time.Hour)
			resp := in(t, m, sid, func(s *session.Session) {
				if x := session.NewKey[int]("x").Get(s); x != 1 || s.ID() != sid || s.Err() != nil {
					t.Errorf("%s: x is %d, %v", record, x, s.Err())
				}
				if seen := time.Since(s.LastSeen()); seen < 22*time.Hour || seen > 24*time.Hour {
					t.Errorf("%s: last seen %v ago", record, seen)
				}
				if d := time.Until(s.Expires()); d > time.Hour || d < 59*time.Minute {
					t.Errorf("%s: expires in %v", record, d)
				}
			})
			got, life := s.get(sid)
			isPersistent := strings.Contains(record, `"originalMaxAge":86400000`) // a cookie with a maxAge is sent again
			if got != record || life < 23*time.Hour || life > 24*time.Hour || (resp.Header.Get("Set-Cookie") != "") != isPersistent {
				t.Errorf("after a use the record is %s for %v, %v", got, life, resp.Header)
			}
			in(t, m, sid, func(s *session.Session) {
				if seen := time.Since(s.LastSeen()); seen > time.Minute {
					t.Errorf("after a use LastSeen is %v ago", seen)
				}
			})
		}
	})
}

// TestSaveKeepsAUse checks that a Save of a record that was loaded before a use does not revert the
// use, neither by Express nor by Go: the stored end is that of the key or the column, as Load
// returns it.
func TestSaveKeepsAUse(t *testing.T) {
	const record = `{"cookie":{"originalMaxAge":86400000,"expires":"2029-01-01T00:00:00.000Z","httpOnly":true,"path":"/"},"x":1}`
	onShelves(t, expressjs.Options{}, func(t *testing.T, s *shelf) {
		version := uint64(0)
		save := func(r *session.Record) {
			t.Helper()
			version++
			old := *r
			r.Version, r.Data = version, []byte(fmt.Sprintf(`{"x":%d}`, version))
			if err := s.store.Save(t.Context(), r, old.Version); err != nil {
				t.Error(err)
			}
		}
		load := func(id string) *session.Record {
			t.Helper()
			r, err := s.store.Load(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		for name, use := range map[string]func(id string){
			"Express": func(id string) {
				raw, _ := s.get(id)
				s.put(id, raw, 24*time.Hour) // the effect of a touch of Express: the same record with another end
			},
			"Go": func(id string) {
				now := time.Now()
				if err := s.store.Touch(t.Context(), id, now, now.Add(24*time.Hour)); err != nil {
					t.Error(err)
				}
			},
		} {
			for _, writer := range []string{"Express", "Go"} {
				id := "used-by-" + name + "-written-by-" + writer
				s.put(id, record, time.Hour)
				if writer == "Go" {
					save(load(id))
				}
				before := load(id)
				if left := time.Until(before.Expires); left > time.Hour || time.Since(before.LastSeen) < 22*time.Hour {
					t.Fatalf("%s: before the use LastSeen is %v, %v left", id, before.LastSeen, left)
				}
				use(id)
				save(before)
				for range 2 {
					r := load(id)
					_, life := s.get(id)
					if left := time.Until(r.Expires); time.Since(r.LastSeen) > time.Minute || left < 23*time.Hour || life < 23*time.Hour || r.Version != version {
						t.Errorf("%s: after the use and the Save LastSeen is %v ago, %v left, the record lives for %v", id, time.Since(r.LastSeen), left, life)
					}
					save(r)
				}
				last := load(id) // an earlier Deadline, as a Remember sets it, ends the record earlier
				last.Deadline = time.Now().Add(time.Minute).Truncate(time.Millisecond)
				last.Expires = last.Deadline.Add(-time.Second)
				save(last)
				if _, life := s.get(id); life > time.Minute || !load(id).Expires.Equal(last.Deadline) {
					t.Errorf("%s: the record lives for %v, and expires %v before its Deadline", id, life, last.Deadline.Sub(load(id).Expires))
				}
			}
		}
	})
}

// TestEveryWriteLeavesAValidCookie checks that every write of Go corrects an invalid cookie object,
// with which Express would answer with errors.
func TestEveryWriteLeavesAValidCookie(t *testing.T) {
	onShelves(t, expressjs.Options{}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		none := strings.TrimPrefix(begun, `{"cookie":`)
		for before, want := range map[string]string{
			`{"x":1}`:               `{"cookie":` + none + `,"x":1,"y":2}`,
			`{"cookie":null,"x":1}`: `{"cookie":` + none + `,"x":1,"y":2}`,
			`{"cookie":[],"x":1}`:   `{"cookie":` + none + `,"x":1,"y":2}`,
			`{"cookie":"a","x":1}`:  `{"cookie":` + none + `,"x":1,"y":2}`,
			`{"cookie":{"originalMaxAge":"60000","expires":7,"httpOnly":1,"path":{},"sameSite":"odd","priority":0,"secure":"auto","other":"kept"},"x":1}`: `{"cookie":{"other":"kept"},"x":1,"y":2}`,
			`{"cookie":{"originalMaxAge":null,"expires":false,"httpOnly":false,"path":"/a","sameSite":"LAX","domain":"a.test","partitioned":true},"x":1}`: `{"cookie":{"originalMaxAge":null,"expires":false,"httpOnly":false,"path":"/a","sameSite":"LAX","domain":"a.test","partitioned":true},"x":1,"y":2}`,
		} {
			s.put(sid, before, time.Hour)
			in(t, m, sid, func(s *session.Session) { session.NewKey[int]("y").Set(s, 2) })
			if got, _ := s.get(sid); got != want {
				t.Errorf("the record %s becomes\n%s\nwant\n%s", before, got, want)
			}
		}
	})
}

// TestDamagedRecords checks that a record that Express treats as no session is none, and that one
// that Express cannot read is a failure and not an anonymous session.
func TestDamagedRecords(t *testing.T) {
	onShelves(t, expressjs.Options{}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, func(o *session.Options) {
			o.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) {
				if !errors.Is(err, session.ErrStore) {
					t.Error(err)
				}
				w.WriteHeader(503)
			}
		})
		for record, status := range map[string]int{`null`: 200, `false`: 200, `0`: 200, `""`: 200, `[]`: 503, `[1]`: 503, `"{}"`: 503, `7`: 503} {
			s.put(sid, record, time.Hour)
			resp := in(t, m, sid, func(s *session.Session) {
				if s.User() != "" || s.ID() != "" {
					t.Errorf("%s: %q", record, s.ID())
				}
			})
			if got, _ := s.get(sid); resp.StatusCode != status || resp.Header.Get("Set-Cookie") != "" || got != record {
				t.Errorf("%s: %s, the record is %s", record, resp.Status, got)
			}
		}
	})
}

// TestReservedNames checks that names that every Express session has are refused, and that the
// session is unchanged.
func TestReservedNames(t *testing.T) {
	onShelves(t, expressjs.Options{}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, func(o *session.Options) {
			o.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) {
				if errors.Is(err, session.ErrStore) {
					t.Errorf("got a failure of the store: %v", err)
				}
			}
			o.OnEvent = func(_ context.Context, e session.Event) {
				if e.Kind == session.EventStoreFailed {
					t.Error(e)
				}
			}
		})
		const record = `{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"x":1}`
		for name := range strings.FieldsSeq(`cookie id req touch resetMaxAge save reload destroy regenerate constructor hasOwnProperty isPrototypeOf propertyIsEnumerable
			toString toLocaleString valueOf __proto__ __defineGetter__ __defineSetter__ __lookupGetter__ __lookupSetter__`) {
			s.put(sid, record, time.Hour)
			resp := in(t, m, sid, func(s *session.Session) { session.NewKey[int](name).Set(s, 1) })
			if got, _ := s.get(sid); resp.StatusCode != 500 || got != record {
				t.Errorf("%s: %s, the record is %s", name, resp.Status, got)
			}
		}
		in(t, m, sid, func(s *session.Session) { session.NewKey[int]("toJSON").Set(s, 1) })
		if got, _ := s.get(sid); !strings.Contains(got, `"toJSON":1`) {
			t.Error(got)
		}
	})
}

// TestSlowGoWriter checks a write of Go that is concurrent to Express: if Express destroys the
// session, it stays destroyed; if Express changes another value, both changes are kept.
func TestSlowGoWriter(t *testing.T) {
	const record = `{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"x":1}`
	onShelves(t, expressjs.Options{}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		s.put(sid, record, time.Hour)
		in(t, m, sid, func(ses *session.Session) {
			session.NewKey[int]("go").Set(ses, 1)
			s.put(sid, strings.Replace(record, `"x":1`, `"x":2,"node":3`, 1), time.Hour)
		})
		if got, _ := s.get(sid); !strings.HasSuffix(got, `"x":2,"node":3,"go":1}`) {
			t.Error(got)
		}
		in(t, m, sid, func(ses *session.Session) {
			session.NewKey[int]("go").Set(ses, 2)
			s.drop(sid)
		})
		if got, _ := s.get(sid); got != "" {
			t.Error("Express destroyed the session, and the record is", got)
		}
	})
}

// TestExpressWritesAnEndedSession checks that Go does not accept, and deletes, the record of a
// session that Go has logged out and an in-flight request of Express writes again.
func TestExpressWritesAnEndedSession(t *testing.T) {
	const record = `{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"x":1}`
	onShelves(t, expressjs.Options{}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		for _, end := range []func(*session.Session){(*session.Session).Logout, func(s *session.Session) { s.Login("ann") }} {
			s.put(sid, record, time.Hour)
			in(t, m, sid, end)
			if got, _ := s.get(sid); got != "" {
				t.Error("Go ended the session, and the record is", got)
			}
			s.put(sid, record, time.Hour)
			in(t, m, sid, func(s *session.Session) {
				if s.ID() != "" || s.User() != "" {
					t.Errorf("the request has the ended session %q of %q", s.ID(), s.User())
				}
			})
			if got, _ := s.get(sid); got != "" {
				t.Error("Go has seen the record again, and it is", got)
			}
			if err := s.store.Delete(t.Context(), sid); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestAbsoluteEnd checks that Go deletes the record of a session that Express uses past its
// absolute end, which Express does not know.
func TestAbsoluteEnd(t *testing.T) {
	onShelves(t, expressjs.Options{}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		for life := 2 * time.Second; ; life *= 2 {
			id := "lives-for-" + life.String()
			now := time.Now().Truncate(time.Millisecond)
			end := now.Add(life)
			r := &session.Record{ID: id, User: "ann", Data: []byte(`{"x":1}`), Created: now, LastSeen: now, Expires: end, Deadline: end, Version: 1}
			if err := s.store.Create(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			record, _ := s.get(id)
			s.put(id, record, time.Hour)
			list, err := m.List(t.Context(), "ann")
			if life < time.Minute && !time.Now().Before(end) {
				continue // slow machine: no result
			}
			if err != nil || len(list) != 1 || !list[0].Expires.Equal(end) {
				t.Errorf("before the absolute end List returned %+v, %v", list, err)
			}
			time.Sleep(time.Until(end))
			in(t, m, id, func(s *session.Session) {
				if s.ID() != "" || !s.Ended() {
					t.Errorf("after the absolute end the request has the session %q of %q", s.ID(), s.User())
				}
			})
			if got, _ := s.get(id); got != "" {
				t.Error("after the absolute end the record is", got)
			}
			return
		}
	})
}

// TestRemember checks that Remember sets a maxAge in the cookie of the record, so that Express uses
// it too.
func TestRemember(t *testing.T) {
	onShelves(t, expressjs.Options{}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		r, _ := http.NewRequest("GET", "https://example.test/", nil)
		sessiontest.Do(t, m, r, func(s *session.Session) {
			s.Login("ann")
			s.Remember(30 * 24 * time.Hour)
		})
		var id string
		sessiontest.Do(t, m, r, func(s *session.Session) { id = s.ID() })
		got, life := s.get(id)
		if !strings.Contains(got, `"originalMaxAge":2591999`) && !strings.Contains(got, `"originalMaxAge":2592000000`) || life < 29*24*time.Hour {
			t.Errorf("the record is %s for %v", got, life)
		}
	})
}

// TestRedirectRace checks that a signed id without a record sets no cookie, and is loaded once more
// with AwaitWrite.
func TestRedirectRace(t *testing.T) {
	const record = `{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"x":1}`
	onShelves(t, expressjs.Options{}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		resp := in(t, m, sid, func(s *session.Session) {
			if s.ID() != "" || s.Err() != nil || !s.Ended() {
				t.Errorf("%q, %v, %v", s.ID(), s.Err(), s.Ended())
			}
		})
		if resp.Header.Get("Set-Cookie") != "" || resp.StatusCode != 200 {
			t.Errorf("%s %v", resp.Status, resp.Header)
		}
		s.put(sid, record, time.Hour)
		in(t, m, sid, func(s *session.Session) {
			if s.ID() != sid {
				t.Errorf("the session has the id %q", s.ID())
			}
		})
	})
	for wait, isLate := time.Second, true; isLate; wait *= 4 {
		var late atomic.Bool
		t.Run(wait.String(), func(t *testing.T) {
			onShelves(t, expressjs.Options{AwaitWrite: wait}, func(t *testing.T, s *shelf) {
				m := service(t, s.store, nil)
				begun, stored := time.Now(), make(chan time.Time, 1)
				time.AfterFunc(wait/10, func() {
					s.put(sid, record, time.Hour)
					stored <- time.Now()
				})
				var x int
				in(t, m, sid, func(s *session.Session) { x = session.NewKey[int]("x").Get(s) })
				if after := (<-stored).Sub(begun); x != 1 && after < wait {
					t.Errorf("x is %d, the record was stored after %v", x, after)
				} else if x != 1 {
					late.Store(true) // slow machine: no result
				}
			})
		})
		isLate = late.Load() && wait < time.Minute/4
	}
}

// TestOddNames checks that the last of several members of the same name counts, as for JSON.parse,
// and that members that begin with "session." in a record of Express do not end the session or give
// it a key.
func TestOddNames(t *testing.T) {
	onShelves(t, expressjs.Options{}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		for before, want := range map[string]string{
			`{"cookie":{},"a":1,"b":0,"a":2}`:                            `{"cookie":{},"b":0,"a":2,"new":1}`,
			`{"session.ended":"logout","cookie":{},"a":2}`:               `{"session.ended":"logout","cookie":{},"a":2,"new":1}`,
			`{"session.key":"0123456789012345678901","cookie":{},"a":2}`: `{"session.key":"0123456789012345678901","cookie":{},"a":2,"new":1}`,
		} {
			s.put(sid, before, time.Hour)
			in(t, m, sid, func(s *session.Session) {
				if a := session.NewKey[int]("a").Get(s); a != 2 || s.Err() != nil {
					t.Errorf("%s: a is %d, %v", before, a, s.Err())
				}
				session.NewKey[int]("new").Set(s, 1)
			})
			if got, _ := s.get(sid); got != want {
				t.Errorf("the record %s becomes %s, want %s", before, got, want)
			}
		}
	})
}

// TestUnspeakableNames checks that members whose names NewKey refuses are not listed, and are kept
// byte for byte, also in the new session of a Login.
func TestUnspeakableNames(t *testing.T) {
	const odd = `,"":1,"\ud800":2,"\udfff":3,"x\ud83dy":4,"\ude00\ud83d":5,"\\ud800":6,"\ud83d\ude00":7,"\ufffd":8,"session.":9}`
	onShelves(t, expressjs.Options{UserMember: "userId"}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		s.put(sid, bare+odd, time.Hour)
		in(t, m, sid, func(s *session.Session) {
			if got := fmt.Sprintf("%q", s.Names()); got != "[\"\\\\ud800\" \"�\" \"😀\"]" {
				t.Error(got)
			}
			for i, name := range []string{`\ud800`, "😀", "\ufffd"} {
				if got := session.NewKey[int](name).Get(s); got != 6+i {
					t.Errorf("%q is %d", name, got)
				}
			}
			session.NewKey[int]("n").Set(s, 1)
		})
		if got, _ := s.get(sid); got != bare+strings.TrimSuffix(odd, "}")+`,"n":1}` {
			t.Errorf("after a write the record is %s", got)
		}
		in(t, m, sid, func(s *session.Session) { s.Login("ann") })
		list, err := m.List(t.Context(), "ann")
		if err != nil || len(list) != 1 {
			t.Fatal(len(list), err)
		}
		got, _ := s.get(list[0].ID)
		for member := range strings.SplitSeq(strings.Trim(odd, ",}"), ",") {
			if !strings.Contains(got, member) && !strings.HasPrefix(member, `"session.`) && !strings.HasSuffix(member, ":7") && !strings.HasSuffix(member, ":8") {
				t.Errorf("%s is not in %s", member, got)
			}
		}
	})
}

// TestUpdateOfAnotherType checks that a value that Express wrote in another type is absent, and
// that an Update of it fails the request, because it would overwrite the value of Express.
func TestUpdateOfAnotherType(t *testing.T) {
	onShelves(t, expressjs.Options{}, func(t *testing.T, s *shelf) {
		m, n := service(t, s.store, nil), session.NewKey[int]("n")
		add := func(i int) int { return i + 1 }
		for value, ok := range map[string]bool{`1`: true, `null`: true, `"1"`: false, `1.5`: false, `{"a":1}`: false, `[1]`: false, `true`: false} {
			record := bare + `,"n":` + value + `}`
			for name, update := range map[string]func(s *session.Session) error{
				"Update":    func(s *session.Session) error { n.Update(s, add); return s.Save(t.Context()) },
				"UpdateNow": func(s *session.Session) error { _, err := n.UpdateNow(t.Context(), s, add); return err },
				"Refresh": func(s *session.Session) error {
					_, err := n.Refresh(t.Context(), s, func(int) bool { return false }, func(_ context.Context, i int) (int, error) { return i + 1, nil })
					return err
				},
			} {
				s.put(sid, record, time.Hour)
				in(t, m, sid, func(s *session.Session) {
					if err := update(s); (err == nil) != ok || errors.Is(err, session.ErrStore) {
						t.Errorf("%s of %s: %v", name, value, err)
					}
				})
				if got, _ := s.get(sid); (got == record) == ok {
					t.Errorf("%s of %s: the record is %s", name, value, got)
				}
			}
		}
	})
}

// TestPopOfAnotherType checks that Pop and Take do not find, and keep, a value that Express wrote
// in another type.
func TestPopOfAnotherType(t *testing.T) {
	onShelves(t, expressjs.Options{}, func(t *testing.T, s *shelf) {
		m, n := service(t, s.store, nil), session.NewKey[int]("n")
		for value, ok := range map[string]bool{`1`: true, `"1"`: false, `{"a":1}`: false} {
			record := bare + `,"n":` + value + `}`
			for name, pop := range map[string]func(s *session.Session) bool{
				"Pop":  func(s *session.Session) bool { _, ok := n.Pop(s); return ok },
				"Take": func(s *session.Session) bool { _, ok, _ := n.Take(t.Context(), s); return ok },
			} {
				s.put(sid, record, time.Hour)
				in(t, m, sid, func(s *session.Session) {
					if pop(s) != ok {
						t.Errorf("%s of %s: found: %v", name, value, !ok)
					}
				})
				if got, _ := s.get(sid); (got == record) == ok {
					t.Errorf("%s of %s: the record is %s", name, value, got)
				}
			}
		}
	})
}

// TestRecordVectors checks that records that real programs wrote are read as those programs read
// them.
func TestRecordVectors(t *testing.T) {
	var all []struct {
		Name   string
		Record string
		In     string `json:"record_in"`
		Data   map[string]any
		TTL    float64 `json:"ttl_seconds"`
		Error  string
	}
	b, err := os.ReadFile("testdata/records.json")
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil || len(all) < 20 {
		t.Fatal(len(all), err)
	}
	onShelves(t, expressjs.Options{}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		for i, v := range all {
			record, id := v.Record+v.In, fmt.Sprint("vector-", i)
			s.put(id, record, time.Hour)
			in(t, m, id, func(s *session.Session) {
				if s.ID() != id || s.Err() != nil {
					t.Errorf("%s: %q, %v", v.Name, s.ID(), s.Err())
				}
				for name, want := range v.Data {
					if got := session.NewKey[any](name).Get(s); fmt.Sprint(got) != fmt.Sprint(want) {
						t.Errorf("%s: %s is %v, want %v", v.Name, name, got, want)
					}
				}
			})
			if got, _ := s.get(id); got != record {
				t.Errorf("%s: after a read the record is %s", v.Name, got)
			}
			in(t, m, id, func(s *session.Session) { session.NewKey[int]("new").Set(s, 1) })
			got, _ := s.get(id)
			var is struct{ Cookie map[string]any }
			if err := json.Unmarshal([]byte(got), &is); err != nil || is.Cookie == nil || !strings.HasSuffix(got, `"new":1}`) {
				t.Errorf("%s: after a write the record is %s, %v", v.Name, got, err)
			}
		}
	})
}

func TestOptions(t *testing.T) {
	client := redis.NewClient(&redis.Options{})
	defer client.Close()
	for want, o := range map[string]expressjs.Options{
		"Prefix:":          {Prefix: "go-"},
		"TTL:":             {TTL: time.Millisecond},
		"AwaitWrite:":      {AwaitWrite: -1},
		"UserMember:":      {Passport: true, UserMember: "userId"},
		"UserMember: \"id": {UserMember: "id"},
		"NumericUser:":     {NumericUser: true},
		"Cookie.MaxAge:":   {Cookie: expressjs.Cookie{MaxAge: time.Microsecond}},
		"Cookie.SameSite:": {Cookie: expressjs.Cookie{SameSite: "Lax"}},
		"Cookie.Priority:": {Cookie: expressjs.Cookie{Priority: "urgent"}},
	} {
		if _, err := expressjs.NewRedisStore(client, &o); err == nil || !strings.Contains(err.Error(), "expressjs: Options."+want) {
			t.Errorf("%s %v", want, err)
		}
	}
	if _, err := expressjs.NewRedisStore(nil, nil); err == nil {
		t.Error("no error without a client")
	}
	if _, err := expressjs.NewPostgresStore(nil, nil); err == nil {
		t.Error("no error without a pool")
	}
	if _, err := expressjs.NewRedisStore(client, nil); err != nil {
		t.Error(err)
	}
}
