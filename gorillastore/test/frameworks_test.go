// Package test tests gorillastore with libraries that take a sessions.Store.
package test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"sync"
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/gorillastore"
	"github.com/coatcheck/session/sessiontest"
	ginsessions "github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
	"github.com/gorilla/sessions"
	echosession "github.com/labstack/echo-contrib/session"
	"github.com/labstack/echo/v4"
	"github.com/markbates/goth"
	"github.com/markbates/goth/gothic"
	"github.com/markbates/goth/providers/faux"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	gin.DefaultWriter = io.Discard
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

var options = gorillastore.Options{UserKey: gorillastore.UserKey{Session: "session-name", Key: "user"}}

func text(t *testing.T, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(resp.StatusCode, " ", string(b))
}

// gothic keeps its own session in the store, and the application logs the user in by another.
func TestGothic(t *testing.T) {
	manager := session.Must(session.New(nil))
	store := gorillastore.New(manager, &options)
	was := gothic.Store
	gothic.Store = store
	t.Cleanup(func() { gothic.Store = was })
	goth.UseProviders(&faux.Provider{})
	mux := http.NewServeMux()
	mux.HandleFunc("/auth", gothic.BeginAuthHandler)
	mux.HandleFunc("/callback", func(w http.ResponseWriter, r *http.Request) {
		user, err := gothic.CompleteUserAuth(w, r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		gs, _ := store.Get(r, "session-name")
		gs.Values["user"] = user.UserID
		if err := gs.Save(r, w); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/me", func(w http.ResponseWriter, r *http.Request) {
		s := manager.From(r.Context())
		fmt.Fprint(w, s.User(), len(s.Names()))
	})
	b := sessiontest.NewBrowser(t, manager.Handler(mux))
	resp := b.Get("/auth?provider=faux")
	to, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || resp.StatusCode != http.StatusTemporaryRedirect {
		t.Fatal(text(t, resp), err)
	}
	state := to.Query().Get("state")
	if got := text(t, b.Get("/callback?provider=faux&state=forged")); got != "401 state token mismatch\n" {
		t.Errorf("with a forged state: %s", got)
	}
	if got := text(t, b.Get("/callback?provider=faux&state="+url.QueryEscape(state))); got == "200 " {
		t.Error("the state was used twice")
	}
	resp = b.Get("/auth?provider=faux")
	if to, err = url.Parse(resp.Header.Get("Location")); err != nil {
		t.Fatal(err)
	}
	if got := text(t, b.Get("/callback?provider=faux&state="+url.QueryEscape(to.Query().Get("state")))); got != "200 " {
		t.Errorf("the callback: %s", got)
	}
	if got := text(t, b.Get("/me")); got != "200 id1" { // only the entry that the application has set
		t.Errorf("afterwards: %s", got)
	}
}

func TestEcho(t *testing.T) {
	manager := session.Must(session.New(nil))
	e := echo.New()
	e.Use(echosession.Middleware(gorillastore.New(manager, &options)))
	e.POST("/login", func(c echo.Context) error {
		gs, err := echosession.Get("session-name", c)
		if err != nil {
			return err
		}
		gs.Options = &sessions.Options{Path: "/", MaxAge: 86400 * 7, HttpOnly: true}
		gs.Values["user"] = c.FormValue("user")
		gs.AddFlash("Hello!")
		if err := gs.Save(c.Request(), c.Response()); err != nil {
			return err
		}
		return c.NoContent(http.StatusOK)
	})
	e.GET("/me", func(c echo.Context) error {
		gs, err := echosession.Get("session-name", c)
		if err != nil {
			return err
		}
		flashes := gs.Flashes()
		if err := gs.Save(c.Request(), c.Response()); err != nil {
			return err
		}
		return c.String(http.StatusOK, fmt.Sprint(gs.Values["user"], flashes, manager.From(c.Request().Context()).User()))
	})
	e.POST("/logout", func(c echo.Context) error {
		gs, err := echosession.Get("session-name", c)
		if err != nil {
			return err
		}
		gs.Options.MaxAge = -1
		if err := gs.Save(c.Request(), c.Response()); err != nil {
			return err
		}
		return c.NoContent(http.StatusOK)
	})
	b := sessiontest.NewBrowser(t, manager.Handler(e))
	for _, step := range []struct{ path, want string }{
		{"GET /me", "200 <nil> []"}, {"POST /login", "200 "}, {"GET /me", "200 alice[Hello!]alice"}, {"GET /me", "200 alice[]alice"},
		{"POST /logout", "200 "}, {"GET /me", "200 <nil> []"},
	} {
		if got := send(t, b, step.path); got != step.want {
			t.Errorf("%s: got %q, want %q", step.path, got, step.want)
		}
	}
}

func send(t *testing.T, b *sessiontest.Browser, to string) string {
	t.Helper()
	var method, path string
	if _, err := fmt.Sscan(to, &method, &path); err != nil {
		t.Fatal(err)
	}
	if method == "POST" {
		return text(t, b.PostForm(path, url.Values{"user": {"alice"}}))
	}
	return text(t, b.Get(path))
}

// A ginStore is a store of gin-contrib/sessions. The Manager decides about the cookie, so the
// options have no effect.
type ginStore struct{ sessions.Store }

func (ginStore) Options(ginsessions.Options) {}

func ginApp(manager *session.Manager, keep func(*gin.Engine)) http.Handler {
	r := gin.New()
	r.Use(ginsessions.Sessions("session-name", ginStore{gorillastore.New(manager, &options)}))
	keep(r)
	return manager.Handler(r) // around the engine
}

func TestGin(t *testing.T) {
	manager := session.Must(session.New(nil))
	save := func(c *gin.Context) {
		if err := ginsessions.Default(c).Save(); err != nil {
			_ = c.AbortWithError(http.StatusInternalServerError, err)
		}
	}
	handler := ginApp(manager, func(r *gin.Engine) {
		r.POST("/login", func(c *gin.Context) {
			s := ginsessions.Default(c)
			s.Set("user", c.PostForm("user"))
			s.AddFlash("Hello!")
			save(c)
		})
		r.GET("/me", func(c *gin.Context) {
			s := ginsessions.Default(c)
			user, flashes := s.Get("user"), s.Flashes()
			save(c)
			c.String(http.StatusOK, fmt.Sprint(user, flashes, manager.From(c.Request.Context()).User()))
		})
		r.POST("/logout", func(c *gin.Context) {
			ginsessions.Default(c).Clear()
			save(c)
		})
	})
	b := sessiontest.NewBrowser(t, handler)
	for _, step := range []struct{ path, want string }{
		{"GET /me", "200 <nil> []"}, {"POST /login", "200 "}, {"GET /me", "200 alice[Hello!]alice"}, {"GET /me", "200 alice[]alice"},
		{"POST /logout", "200 "}, {"GET /me", "200 <nil> []"},
	} {
		if got := send(t, b, step.path); got != step.want {
			t.Errorf("%s: got %q, want %q", step.path, got, step.want)
		}
	}
}

// 50 concurrent requests through a framework change different entries: 50 survive.
func TestConcurrentRequestsOfGin(t *testing.T) {
	const n = 50
	manager := session.Must(session.New(nil))
	var read, done sync.WaitGroup
	read.Add(n)
	handler := ginApp(manager, func(r *gin.Engine) {
		r.GET("/begin", func(c *gin.Context) {
			s := ginsessions.Default(c)
			s.Set("first", 1)
			_ = s.Save()
		})
		r.GET("/set", func(c *gin.Context) {
			s := ginsessions.Default(c)
			s.Set(c.Query("k"), 1)
			s.AddFlash(c.Query("k"))
			read.Done()
			read.Wait()
			if err := s.Save(); err != nil {
				t.Error(err)
			}
		})
		r.GET("/count", func(c *gin.Context) {
			s := ginsessions.Default(c)
			count := 0
			for i := range n {
				if s.Get(fmt.Sprint(i)) == 1 {
					count++
				}
			}
			c.String(http.StatusOK, fmt.Sprint(count, " ", len(s.Flashes())))
		})
	})
	b := sessiontest.NewBrowser(t, handler)
	b.Get("/begin")
	for i := range n {
		done.Go(func() { b.Get(fmt.Sprint("/set?k=", i)) })
	}
	done.Wait()
	if got := text(t, b.Get("/count")); got != "200 50 50" {
		t.Errorf("got %q", got)
	}
}
