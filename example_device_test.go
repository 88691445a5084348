package session_test

import (
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
