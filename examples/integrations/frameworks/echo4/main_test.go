package main

import (
	"net/http/httptest"
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/examples/integrations/frameworks/apptest"
	"github.com/coatcheck/session/sessiontest"
	"github.com/labstack/echo/v4"
)

func TestApp(t *testing.T) { apptest.Run(t, app) }

// A handler is tested without a server, in a context that the test makes.
func TestDashboard(t *testing.T) {
	sessions := session.Must(session.New(nil))
	w := httptest.NewRecorder()
	r := sessiontest.Request(t, sessions, httptest.NewRequest("GET", "/dashboard", nil))
	session.From(r.Context()).Login("alice")
	c := echo.New().NewContext(r, w)
	if err := dashboard(c); err != nil {
		t.Error(err)
	}
	if w.Body.String() != "Welcome back, alice!" || visits.Get(session.From(r.Context())) != 1 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
