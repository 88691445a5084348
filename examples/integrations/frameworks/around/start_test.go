package around

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sessiontest"
	"github.com/gin-gonic/gin"
	echo4 "github.com/labstack/echo/v4"
	"github.com/labstack/echo/v5"
)

var counted = session.NewKey[int]("count")

// TestGinStream covers gin's c.Stream, which asserts http.CloseNotifier on the writer.
func TestGinStream(t *testing.T) {
	gin.SetMode(gin.TestMode)
	e := gin.New()
	e.GET("/stream", func(c *gin.Context) {
		n := 0
		c.Stream(func(io.Writer) bool {
			c.SSEvent("tick", n)
			n++
			return n < 3
		})
	})
	sessions := session.Must(session.New(nil))
	for name, h := range map[string]http.Handler{"engine": sessions.Handler(e), "in a middleware": unwraps{sessions.Handler(e)}} {
		srv := httptest.NewServer(h)
		resp, err := http.Get(srv.URL + "/stream")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		srv.Close()
		if n := strings.Count(string(text), "event:tick"); n != 3 || err != nil {
			t.Errorf("%s: %d events of three: %q, %v", name, n, text, err)
		}
	}
}

// unwraps is a middleware whose writer implements Unwrap for http.ResponseController.
type unwraps struct{ next http.Handler }

type unwrapWriter struct{ http.ResponseWriter }

func (w unwrapWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (m unwraps) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.next.ServeHTTP(unwrapWriter{w}, r)
}

// TestStartReplacesTheHandler shows that the Start or Run of a framework serves the framework
// instead of the handler that wraps it: From panics with an explanation.
func TestStartReplacesTheHandler(t *testing.T) {
	sessions := session.Must(session.New(nil))
	panicked := make(chan any, 1)
	page := func(r *http.Request) {
		defer func() { panicked <- recover() }()
		session.From(r.Context())
	}
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	for name, serve := range map[string]func(l net.Listener) (stop func() error){
		"echo4's StartServer": func(l net.Listener) func() error {
			e := echo4.New()
			e.HideBanner, e.HidePort, e.Listener = true, true, l
			e.GET("/", func(c echo4.Context) error { page(c.Request()); return nil })
			srv := &http.Server{Handler: sessions.Handler(e)}
			go e.StartServer(srv)
			return srv.Close
		},
		"gin's RunListener": func(l net.Listener) func() error {
			gin.SetMode(gin.TestMode)
			e := gin.New()
			e.GET("/", func(c *gin.Context) { page(c.Request) })
			_ = sessions.Handler(e)
			go e.RunListener(l)
			return l.Close
		},
	} {
		l := listen()
		stop := serve(l)
		resp, err := http.Get("http://" + l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if text, _ := (<-panicked).(string); !strings.Contains(text, "not by the framework's Start or Run") {
			t.Errorf("%s: %q", name, text)
		}
		stop()
	}
}

// TestEchoWrapMiddleware shows that echo.WrapMiddleware(sessions.Handler) works with one
// limitation: the error page of a handler that returns an error is written after the middleware
// has returned. The session is saved and its cookie set by then, so changes of an error handler
// are too late.
func TestEchoWrapMiddleware(t *testing.T) {
	refused := errors.New("refused")
	for name, app := range map[string]func(m *session.Manager) http.Handler{
		"v4": func(m *session.Manager) http.Handler {
			e := echo4.New()
			e.Use(echo4.WrapMiddleware(m.Handler))
			e.HTTPErrorHandler = func(err error, c echo4.Context) {
				session.From(c.Request().Context()).AddFlash("error", "too late")
				c.String(http.StatusTeapot, err.Error())
			}
			from := func(c echo4.Context) *session.Session { return session.From(c.Request().Context()) }
			e.POST("/login", func(c echo4.Context) error { from(c).Login("alice"); return c.NoContent(200) })
			e.GET("/count", func(c echo4.Context) error {
				counted.Update(from(c), func(n int) int { return n + 1 })
				return c.String(200, from(c).User())
			})
			e.GET("/look", func(c echo4.Context) error {
				return c.String(200, strconv.Itoa(counted.Get(from(c)))+" "+strconv.Itoa(len(from(c).Flashes())))
			})
			e.GET("/refuse", func(c echo4.Context) error {
				counted.Update(from(c), func(n int) int { return n + 1 })
				from(c).Renew()
				return refused
			})
			return e
		},
		"v5": func(m *session.Manager) http.Handler {
			e := echo.New()
			e.Use(echo.WrapMiddleware(m.Handler))
			e.HTTPErrorHandler = func(c *echo.Context, err error) {
				session.From(c.Request().Context()).AddFlash("error", "too late")
				c.String(http.StatusTeapot, err.Error())
			}
			from := func(c *echo.Context) *session.Session { return session.From(c.Request().Context()) }
			e.POST("/login", func(c *echo.Context) error { from(c).Login("alice"); return c.NoContent(200) })
			e.GET("/count", func(c *echo.Context) error {
				counted.Update(from(c), func(n int) int { return n + 1 })
				return c.String(200, from(c).User())
			})
			e.GET("/look", func(c *echo.Context) error {
				return c.String(200, strconv.Itoa(counted.Get(from(c)))+" "+strconv.Itoa(len(from(c).Flashes())))
			})
			e.GET("/refuse", func(c *echo.Context) error {
				counted.Update(from(c), func(n int) int { return n + 1 })
				from(c).Renew()
				return refused
			})
			return e
		},
	} {
		b := sessiontest.NewBrowser(t, app(session.Must(session.New(nil))))
		read := func(resp *http.Response) string {
			text, _ := io.ReadAll(resp.Body)
			return string(text)
		}
		if resp := b.PostForm("/login", nil); resp.StatusCode != 200 || len(resp.Cookies()) != 1 {
			t.Errorf("%s: the login: %s %v", name, resp.Status, resp.Header)
		}
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if got := read(b.Get("/count")); got != "alice" {
					t.Errorf("%s: logged in as %q", name, got)
				}
			})
		}
		all.Wait()
		if resp := b.Get("/refuse"); resp.StatusCode != http.StatusTeapot || read(resp) != "refused" || len(resp.Cookies()) != 1 {
			t.Errorf("%s: the page of an error: %s %v", name, resp.Status, resp.Header)
		}
		if got := read(b.Get("/look")); got != "21 0" {
			t.Errorf("%s: count and flashes %q, want all 21 and no flash of the error handler", name, got)
		}
	}
}
