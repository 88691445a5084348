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

// BenchmarkRead reads one value of a session in Redis: by our own token and
// redisstore's record, and by express-session's.
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
	// What the token alone costs, with both in memory.
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
			b.Error("not the session")
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
