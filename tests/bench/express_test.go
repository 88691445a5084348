package bench

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/coatcheck/session/redisstore"
	"github.com/redis/go-redis/v9"
)

// BenchmarkRead reads one value of a session in Redis: with a token of this package and a
// record of redisstore, and with those of express-session.
func BenchmarkRead(b *testing.B) {
	client := redis.NewClient(&redis.Options{Addr: servers.Redis(b).Addr, ContextTimeoutEnabled: true})
	defer client.Close()
	own, err := redisstore.New(client, nil)
	if err != nil {
		b.Fatal(err)
	}
	theirs, err := expressjs.NewRedisStore(client, nil)
	if err != nil {
		b.Fatal(err)
	}
	tokens, err := expressjs.Tokens("keyboard cat")
	if err != nil {
		b.Fatal(err)
	}
	for name, o := range map[string]session.Options{
		"own":     {Store: own, Secrets: [][]byte{[]byte("0123456789abcdef0123456789abcdef")}},
		"Express": {Store: theirs, Tokens: tokens, IdleTimeout: 24 * time.Hour},
	} {
		b.Run(name, func(b *testing.B) { read(b, session.Must(session.New(&o))) })
	}
	// The cost of the token alone, with both stores in memory.
	for name, o := range map[string]session.Options{
		"own, memory":             {},
		"Express's token, memory": {Tokens: tokens},
	} {
		b.Run(name, func(b *testing.B) { read(b, session.Must(session.New(&o))) })
	}
}

func read(b *testing.B, m *session.Manager) {
	view := session.NewKey[int]("views")
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if r.URL.Path == "/set" {
			view.Set(s, 1)
			session.NewKey[string]("name").Set(s, "somebody")
		} else if view.Get(s) != 1 {
			b.Error("the session was not found")
		}
	}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "https://example.test/set", nil))
	r := httptest.NewRequest("GET", "https://example.test/", nil)
	r.AddCookie(w.Result().Cookies()[0])
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
}
