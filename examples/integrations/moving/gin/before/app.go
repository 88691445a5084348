// Package before is a small application as it was.
package before

import (
	"net/http"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/cookie"
	"github.com/gin-gonic/gin"
)

// App returns the application.
func App() http.Handler {
	r := gin.New()
	r.Use(sessions.Sessions("mysession", cookie.NewStore([]byte("something-very-secret"))))
	r.POST("/login", login)
	r.GET("/me", me)
	r.POST("/logout", logout)
	return r
}

func login(c *gin.Context) {
	session := sessions.Default(c)
	session.Set("user", c.PostForm("user"))
	session.AddFlash("Hello!")
	if err := session.Save(); err != nil {
		c.String(http.StatusInternalServerError, err.Error())
	}
}

func me(c *gin.Context) {
	session := sessions.Default(c)
	user, _ := session.Get("user").(string)
	if user == "" {
		c.String(http.StatusUnauthorized, "Please log in.\n")
		return
	}
	visits, _ := session.Get("visits").(int)
	visits++
	session.Set("visits", visits)
	flash := ""
	for _, f := range session.Flashes() {
		flash += f.(string)
	}
	if err := session.Save(); err != nil {
		c.String(http.StatusInternalServerError, err.Error())
		return
	}
	c.String(http.StatusOK, "%s, visit %d. %s", user, visits, flash)
}

func logout(c *gin.Context) {
	session := sessions.Default(c)
	session.Clear()
	if err := session.Save(); err != nil {
		c.String(http.StatusInternalServerError, err.Error())
	}
}
