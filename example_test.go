package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/coatcheck/session"
)

var theme = session.NewKey[string]("theme")

func Example() {
	sessions := session.Must(session.New(nil))
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		session.From(r.Context()).Login("alice") // once her password was checked
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "Hello,", session.From(r.Context()).User())
	})
	_ = http.ListenAndServe(":8080", sessions.Handler(mux))
}

func ExampleKey() {
	_ = func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if theme.Get(s) == "" {
			theme.Set(s, "dark")
		}
	}
}

// Two requests at once that read, add and write lose one of the additions.
func ExampleKey_Update_incorrect() {
	_ = func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		visits.Set(s, visits.Get(s)+1) // wrong: somebody else may have saved in between
	}
}

func ExampleKey_Update() {
	_ = func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		visits.Update(s, func(n int) int { return n + 1 }) // runs again on the newer value
	}
}

var banned = session.NewKey[bool]("banned")

// While the store fails every value reads as absent, a flag that forbids among
// them. The response is replaced by a 503, but the mail is out.
func ExampleSession_Err_incorrect() {
	_ = func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if !banned.Get(s) {
			sendMail(r.Context()) // wrong: the flag may be set, and unreadable
		}
	}
}

func ExampleSession_Err() {
	_ = func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if errors.Is(s.Err(), session.ErrStore) {
			return // with the 503 that is the response by now
		}
		if !banned.Get(s) {
			sendMail(r.Context())
		}
	}
}

func sendMail(context.Context) {}

func ExampleSession_Flashes() {
	_ = func(w http.ResponseWriter, r *http.Request) {
		for _, f := range session.From(r.Context()).Flashes() {
			fmt.Fprintf(w, "<p class=%q>%s</p>", f.Kind, f.Text)
		}
	}
}

func ExampleSession_Remember() {
	_ = func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Login("alice")
		if r.FormValue("remember") != "" {
			s.Remember(30 * 24 * time.Hour)
		}
	}
}

func ExampleManager_RevokeOthers() {
	sessions := session.Must(session.New(nil))
	_ = func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		// The new password is stored. Now nobody who knew the old one stays.
		s.Renew()
		if err := sessions.RevokeOthers(r.Context(), s); err != nil {
			http.Error(w, "Try again.", http.StatusServiceUnavailable)
		}
	}
}

// A WebSocket or an event stream outlives the look at its session.
func ExampleSession_Reload() {
	_ = func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		for s.User() != "" {
			fmt.Fprint(w, "data: tick\n\n")
			if http.NewResponseController(w).Flush() != nil {
				return
			}
			time.Sleep(time.Second)
			if err := s.Reload(r.Context()); err != nil {
				return // it has ended, or nobody can say
			}
		}
	}
}

// Who prefers it signs out both thief and owner when a token comes back that was
// replaced.
func ExampleOptions_replayedToken() {
	var sessions *session.Manager
	sessions = session.Must(session.New(&session.Options{
		RenewAfter: 10 * time.Minute,
		OnEvent: func(ctx context.Context, e session.Event) {
			if e.Kind == session.EventReplayed && e.User != "" {
				_ = sessions.Revoke(ctx, e.User, e.ID) // a failure is an event of its own
			}
		},
	}))
}

func ExampleOptions_ErrorHandler() {
	session.Must(session.New(&session.Options{
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			status := http.StatusInternalServerError
			if errors.Is(err, session.ErrStore) {
				status = http.StatusServiceUnavailable
			}
			w.WriteHeader(status)
			fmt.Fprintln(w, "We are having trouble. Please try again in a minute.")
		},
	}))
}
