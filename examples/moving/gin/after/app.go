// Package after is a small application as it is now.
package after

import (
	"net/http"

	"github.com/coatcheck/session"
	"github.com/gin-gonic/gin"
)

var visits = session.NewKey[int]("visits")

// App returns the application.
func App() http.Handler {
	r := gin.New()
	r.POST("/login", login)
	r.GET("/me", me)
	r.POST("/logout", logout)
	return session.Must(session.New(nil)).Handler(r)
}

func login(c *gin.Context) {
	s := session.From(c.Request.Context())
	s.Login(c.PostForm("user"))
	s.AddFlash("info", "Hello!")
}

func me(c *gin.Context) {
	s := session.From(c.Request.Context())
	if s.User() == "" {
		c.String(http.StatusUnauthorized, "Please log in.\n")
		return
	}
	visits.Update(s, func(n int) int { return n + 1 })
	flash := ""
	for _, f := range s.Flashes() {
		flash += f.Text
	}
	c.String(http.StatusOK, "%s, visit %d. %s", s.User(), visits.Get(s), flash)
}

func logout(c *gin.Context) {
	session.From(c.Request.Context()).Logout()
}
