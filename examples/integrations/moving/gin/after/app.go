// Package after is a small application as it is now.
package after

import (
	"context"
	"database/sql"
	"net/http"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sqlstore"
	"github.com/gin-gonic/gin"
)

var visits = session.NewKey[int]("visits")

// App returns the application. Its sessions are in db and survive a restart; secret has 32
// bytes at least and is the same after it.
func App(ctx context.Context, db *sql.DB, secret []byte) (http.Handler, error) {
	store, err := sqlstore.New(db, sqlstore.SQLite, nil)
	if err != nil {
		return nil, err
	}
	if err := store.Migrate(ctx); err != nil {
		return nil, err
	}
	go store.SweepEvery(ctx, 5*time.Minute)
	sessions, err := session.New(&session.Options{Store: store, Secrets: [][]byte{secret}})
	if err != nil {
		return nil, err
	}
	r := gin.New()
	r.POST("/login", login)
	r.GET("/me", me)
	r.POST("/logout", logout)
	return sessions.Handler(r), nil
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
