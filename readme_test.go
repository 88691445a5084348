package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/coatcheck/session"
)

// The functions in this file are printed by the README. The rest of its code is in
// examples/quickstart and in the examples of sessiontest.

func readmeHowTo(w http.ResponseWriter, r *http.Request, s *session.Session, user struct{ ID string }) {
	var theme = session.NewKey[string]("theme") // once, as a package variable; a key knows its type

	theme.Set(s, "dark")
	v, ok := theme.Lookup(s) // or theme.Get(s), theme.Delete(s), theme.Pop(s)
	fmt.Fprintln(w, v, ok)

	visits.Update(s, func(n int) int { return n + 1 }) // f runs again if another request has saved first
	voucher.Take(r.Context(), s)                       // commits now: of concurrent requests, one gets the value

	s.AddFlash("info", "Saved.")
	for _, f := range s.Flashes() { // on the next page, once
		fmt.Fprintln(w, f.Kind, f.Text)
	}

	s.Login(user.ID) // after you have checked the password: a new token, and both clocks restart
	s.Remember(30 * 24 * time.Hour)
	s.Logout() // ends the session in the store, for every process
}

func readmeGuard(w http.ResponseWriter, s *session.Session) {
	if errors.Is(s.Err(), session.ErrStore) {
		return // before anything that leaves this response
	}
	fmt.Fprint(w, "Sent.")
}

func readmeUsers(mux *http.ServeMux, account http.Handler) {
	mux.Handle("GET /account", sessions.RequireUser(account, http.RedirectHandler("/login", http.StatusSeeOther)))
	mux.Handle("GET /api/account", sessions.RequireUser(account, nil)) // nil: 401
}

func readmeDevices(ctx context.Context, s *session.Session, id string) ([]session.Info, error) {
	devices, err := sessions.List(ctx, s.User()) // d.LastSeen, d.Expires, d.ID == s.ID()
	if err != nil {
		return nil, err
	}
	err = sessions.Revoke(ctx, s.User(), id) // or RevokeOthers, RevokeAll
	return devices, err
}

var _ = []any{readmeHowTo, readmeUsers, readmeGuard, readmeDevices} // compiled, not run
