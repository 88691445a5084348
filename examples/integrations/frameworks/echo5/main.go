// Echo5 is the quickstart on github.com/labstack/echo/v5.
package main

import (
	"log"
	"net/http"
	"strconv"

	"github.com/coatcheck/session"
	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"
)

var visits = session.NewKey[int]("visits")

func app(sessions *session.Manager) http.Handler {
	e := echo.New()
	e.Use(middleware.Recover())
	e.POST("/login", func(c *echo.Context) error {
		session.From(c.Request().Context()).Login(c.FormValue("user"))
		return c.NoContent(http.StatusOK)
	})
	e.POST("/logout", func(c *echo.Context) error {
		session.From(c.Request().Context()).Logout()
		return c.NoContent(http.StatusOK)
	})
	e.GET("/dashboard", dashboard)
	e.GET("/visits", func(c *echo.Context) error {
		return c.String(http.StatusOK, strconv.Itoa(visits.Get(session.From(c.Request().Context()))))
	})
	e.GET("/panic", func(*echo.Context) error { panic("oh") })
	return sessions.Handler(e)
}

// dashboard counts the visits of a user who is logged in.
func dashboard(c *echo.Context) error {
	s := session.From(c.Request().Context())
	if s.User() == "" {
		return c.String(http.StatusUnauthorized, "Please log in.")
	}
	visits.Update(s, func(n int) int { return n + 1 })
	return c.String(http.StatusOK, "Welcome back, "+s.User()+"!")
}

func main() {
	sessions := session.Must(session.New(&session.Options{
		Cookie: session.CookieOptions{Insecure: true}, // only for plain http://localhost
	}))
	log.Fatal(http.ListenAndServe("localhost:8080", app(sessions)))
}
