package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/coatcheck/session"
)

// Sessions are bound to the browser that logged in, where the browser can. A page distinguishes a
// browser that could not prove itself just now from a session that has ended.
func ExampleOptions_deviceBound() {
	m := session.Must(session.New(&session.Options{DeviceBound: 10 * time.Minute}))
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if errors.Is(s.Err(), session.ErrUnproven) {
			http.Error(w, "Your browser could not confirm that it is yours. Reload the page in a moment, or log in again.", http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, "user %q, bound to this browser: %v", s.User(), s.DeviceBound())
	}))

	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "https://example.com/", nil))
	fmt.Println(w.Body)
	// Output: user "", bound to this browser: false
}

// A program can sign out both the owner and an attacker when a copy of a cookie is used.
func ExampleOptions_copiedCookie() {
	var sessions *session.Manager
	sessions = session.Must(session.New(&session.Options{
		DeviceBound: 10 * time.Minute,
		OnEvent: func(ctx context.Context, e session.Event) {
			if e.Kind == session.EventUnproven && e.Err == session.ErrUnproven {
				_ = sessions.Revoke(ctx, e.User, e.ID)
			}
		},
	}))
}
