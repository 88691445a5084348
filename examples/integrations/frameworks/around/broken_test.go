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

// The tests in this file show the effect of code that violates the contract of net/http.
// docs/recipes/operating.md, "Frameworks", describes what to do instead.

func newManager(t *testing.T) *session.Manager {
	m, err := session.New(&session.Options{Cookie: session.CookieOptions{Insecure: true}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestWriterWithoutUnwrap uses a middleware whose writer has no Unwrap, which hides the methods
// of the server's writer: the cookie is sent, and Flush returns an error.
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

// TestContextThatIsNotPassedOn uses a middleware that replaces the request's context, so that
// its handlers have no session: From panics with an explanation.
func TestContextThatIsNotPassedOn(t *testing.T) {
	m := newManager(t)
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v, ok := recover().(string); !ok || !strings.Contains(v, "pass r.Context()") {
				t.Errorf("panic: %v", v)
			}
		}()
		session.From(r.WithContext(context.Background()).Context())
	}))
	sessiontest.NewBrowser(t, h).Get("/")
}

// TestInsideGin shows that inside gin the response is written to a writer of gin:
// Manager.Handler around one of gin's handlers sets no cookie, and logs a line once. Around the
// engine it sets the cookie.
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
		t.Error("a cookie is set inside gin: simplify the recipe")
	}
}

// TestFiber shows that the adaptors of Fiber, which is not a net/http server, cannot carry a
// session. Around the application, FiberApp calls the handlers without the request's context.
// Inside it, HTTPMiddleware lets the middleware return before the handler begins, so that
// changes of the handler are too late for the cookie.
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
		t.Error("FiberApp passes the context on: add a program for Fiber")
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
		t.Errorf("%q with %v: add a program for Fiber", body, resp.Header)
	}
}
