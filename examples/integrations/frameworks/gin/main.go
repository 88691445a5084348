// Gin is the quickstart on github.com/gin-gonic/gin.
package main

import (
	"log"
	"net/http"

	"github.com/coatcheck/session"
	"github.com/gin-gonic/gin"
)

var visits = session.NewKey[int]("visits")

func app(sessions *session.Manager) http.Handler {
	engine := gin.New()
	engine.Use(gin.Recovery())
	engine.POST("/login", func(c *gin.Context) {
		session.From(c.Request.Context()).Login(c.PostForm("user"))
	})
	engine.POST("/logout", func(c *gin.Context) {
		session.From(c.Request.Context()).Logout()
	})
	engine.GET("/dashboard", dashboard)
	engine.GET("/visits", func(c *gin.Context) {
		c.String(http.StatusOK, "%d", visits.Get(session.From(c.Request.Context())))
	})
	engine.GET("/panic", func(*gin.Context) { panic("oh") })
	return sessions.Handler(engine) // around the engine, because inside it the response writer is that of gin
}

// dashboard counts the visits of a user who is logged in.
func dashboard(c *gin.Context) {
	s := session.From(c.Request.Context())
	if s.User() == "" {
		c.String(http.StatusUnauthorized, "Please log in.")
		return
	}
	visits.Update(s, func(n int) int { return n + 1 })
	c.String(http.StatusOK, "Welcome back, %s!", s.User())
}

func main() {
	sessions := session.Must(session.New(&session.Options{
		Cookie: session.CookieOptions{Insecure: true}, // only for plain http://localhost
	}))
	log.Fatal(http.ListenAndServe("localhost:8080", app(sessions)))
}
