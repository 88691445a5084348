package bench

import (
	"net"
	"net/http"
	"strings"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/memstore"
	"github.com/gin-gonic/gin"
	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/session"
	"github.com/valyala/fasthttp"
)

// newGin uses gin's router and response writer in every page, also in "/bare". gin.Default
// would add a log line per request.
func newGin(string) app {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.Use(sessions.Sessions("mysession", memstore.NewStore(secret)))
	page := func(path string, f func(s sessions.Session) bool) {
		r.GET(path, func(c *gin.Context) { answerGin(c, f == nil || f(sessions.Default(c))) })
	}
	fill := func(s sessions.Session, blob string) bool {
		s.Set("name", small)
		s.Set("admin", true)
		s.Set("count", 12345)
		if blob != "" {
			s.Set("blob", blob)
		}
		return s.Save() == nil
	}
	found := func(s sessions.Session) bool {
		name, _ := s.Get("name").(string)
		return name != ""
	}
	page("/empty", nil)
	page("/fill", func(s sessions.Session) bool { return fill(s, "") })
	page("/big", func(s sessions.Session) bool { return fill(s, big) })
	page("/read", found)
	page("/forged", func(s sessions.Session) bool { return !found(s) })
	page("/write", func(s sessions.Session) bool {
		count, _ := s.Get("count").(int)
		s.Set("count", count+1)
		return s.Save() == nil
	})
	page("/new", func(s sessions.Session) bool {
		s.Set("name", small)
		return s.Save() == nil
	})
	bare := gin.New()
	bare.GET("/bare", func(c *gin.Context) {
		_, err := c.Cookie("mysession")
		answerGin(c, err == nil)
	})
	return httpApp{r, bare}
}

func answerGin(c *gin.Context, right bool) {
	status := http.StatusOK
	if !right {
		status = http.StatusTeapot
	}
	c.Status(status)
	c.Writer.Write(ok)
}

// fiberApp serves with the handler of fasthttp, without its server and parser.
type fiberApp struct{ h, bare fasthttp.RequestHandler }

func (a fiberApp) visitor(path string, cookies ...string) func(int) bool {
	var ctx fasthttp.RequestCtx
	ctx.Request.SetRequestURI("https://localhost" + path)
	if cookies[0] != "" {
		ctx.Request.Header.Set("Cookie", cookies[0])
	}
	h := a.h
	if path == "/bare" {
		h = a.bare
	}
	return func(i int) bool {
		if len(cookies) > 1 {
			ctx.Request.Header.Set("Cookie", cookies[i])
		}
		ctx.Response.Reset()
		ctx.ResetUserValues()
		h(&ctx)
		return ctx.Response.StatusCode() == http.StatusOK
	}
}

func (a fiberApp) cookie(path string) string {
	var ctx fasthttp.RequestCtx
	ctx.Request.SetRequestURI("https://localhost" + path)
	a.h(&ctx)
	return strings.SplitN(string(ctx.Response.Header.Peek("Set-Cookie")), ";", 2)[0]
}

func (a fiberApp) serve(l net.Listener) error {
	return fasthttp.Serve(l, func(ctx *fasthttp.RequestCtx) {
		if string(ctx.Path()) == "/bare" {
			a.bare(ctx)
		} else {
			a.h(ctx)
		}
	})
}

func newFiber(string) app {
	f := fiber.New()
	f.Use(session.New())
	page := func(path string, do func(s *session.Middleware) bool) {
		f.Get(path, func(c fiber.Ctx) error { return answerFiber(c, do == nil || do(session.FromContext(c))) })
	}
	fill := func(s *session.Middleware, blob string) bool {
		s.Set("name", small)
		s.Set("admin", true)
		s.Set("count", 12345)
		if blob != "" {
			s.Set("blob", blob)
		}
		return true
	}
	found := func(s *session.Middleware) bool {
		name, _ := s.Get("name").(string)
		return name != ""
	}
	page("/empty", nil)
	page("/fill", func(s *session.Middleware) bool { return fill(s, "") })
	page("/big", func(s *session.Middleware) bool { return fill(s, big) })
	page("/read", found)
	page("/forged", func(s *session.Middleware) bool { return !found(s) })
	page("/write", func(s *session.Middleware) bool {
		count, ok := s.Get("count").(int)
		s.Set("count", count+1)
		return ok
	})
	page("/new", func(s *session.Middleware) bool { s.Set("name", small); return true })
	bare := fiber.New()
	bare.Get("/bare", func(c fiber.Ctx) error { return answerFiber(c, c.Cookies("session_id") != "") })
	return fiberApp{f.Handler(), bare.Handler()}
}

func answerFiber(c fiber.Ctx, right bool) error {
	if !right {
		c.Status(http.StatusTeapot)
	}
	return c.Send(ok)
}
