package around

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sessiontest"
	"github.com/gin-gonic/gin"
	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"
)

// What is here breaks the contract of net/http, and what the user sees then. The
// documentation says what to do instead (docs/recipes/operating.md, "Frameworks").

func newManager(t *testing.T) *session.Manager {
	m, err := session.New(&session.Options{Cookie: session.CookieOptions{Insecure: true}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A middleware's writer without Unwrap hides what the server's writer can do: the
// cookie is sent, and Flush fails, aloud.
func TestWriterWithoutUnwrap(t *testing.T) {
	type mute struct{ http.ResponseWriter }
	m := newManager(t)
	var failed error
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			session.From(r.Context()).Login("alice")
			failed = http.NewResponseController(w).Flush()
		})).ServeHTTP(mute{w}, r)
	}))
	defer server.Close()
	if _, header := get(t, server.Client(), server.URL, ""); len(header["Set-Cookie"]) != 1 || failed == nil {
		t.Errorf("%v; Flush: %v", header, failed)
	}
}

// A middleware that passes on another context than the request's leaves its handlers
// without a session: From panics, and says what to do.
func TestContextThatIsNotPassedOn(t *testing.T) {
	m := newManager(t)
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v, ok := recover().(string); !ok || !strings.Contains(v, "pass it r.Context()") {
				t.Errorf("panic: %v", v)
			}
		}()
		session.From(r.WithContext(context.Background()).Context())
	}))
	sessiontest.NewBrowser(t, h).Get("/")
}

// Inside gin the response is written to gin's own writer: a session's Handler around
// one of its handlers sets no cookie. (There is a log line, once.) Around the
// engine it does.
func TestInsideGin(t *testing.T) {
	m := newManager(t)
	engine := gin.New()
	engine.Use(func(c *gin.Context) {
		m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			c.Request = r
			c.Next()
		})).ServeHTTP(c.Writer, c.Request)
	})
	engine.GET("/", func(c *gin.Context) {
		session.From(c.Request.Context()).Login("alice")
		c.String(200, "ok")
	})
	if resp := sessiontest.NewBrowser(t, engine).Get("/"); resp.Header["Set-Cookie"] != nil {
		t.Error("it sets a cookie: the recipe can be simpler")
	}
}

// Fiber is no net/http server, and its adaptors cannot carry a session. Around the
// application, FiberApp passes the request on without its context. Inside it,
// HTTPMiddleware lets the middleware end before the handler begins: what the handler
// does is too late for the cookie.
func TestFiber(t *testing.T) {
	m := newManager(t)
	var found *session.Session
	around := fiber.New()
	around.Get("/", func(c fiber.Ctx) error {
		defer func() { recover() }()
		found = session.From(c.Context())
		return nil
	})
	if sessiontest.NewBrowser(t, m.Handler(adaptor.FiberApp(around))).Get("/"); found != nil {
		t.Error("FiberApp passes on the context: there can be a program for it")
	}

	inside := fiber.New()
	inside.Use(adaptor.HTTPMiddleware(m.Handler))
	inside.Get("/", func(c fiber.Ctx) error {
		if s, ok := c.RequestCtx().UserValue(m).(*session.Session); ok {
			s.Login("alice")
		}
		return c.SendString("ok")
	})
	resp, err := inside.Test(httptest.NewRequest("GET", "/", nil), fiber.TestConfig{Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(resp.Body); resp.Header["Set-Cookie"] != nil || string(body) != "ok" {
		t.Errorf("%q with %v: there can be a program for it", body, resp.Header)
	}
}
