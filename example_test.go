package session_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/coatcheck/session"
)

var theme = session.NewKey[string]("theme")

func Example() {
	sessions := session.Must(session.New(nil))
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		session.From(r.Context()).Login("alice") // after the password was checked
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

// Of two concurrent requests that read, add and write, one addition is lost.
func ExampleKey_Update_incorrect() {
	_ = func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		visits.Set(s, visits.Get(s)+1) // wrong: another request may have saved in between
	}
}

func ExampleKey_Update() {
	_ = func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		visits.Update(s, func(n int) int { return n + 1 }) // runs again on the newer value
	}
}

var banned = session.NewKey[bool]("banned")

// While the store fails every value is absent, including a flag that forbids something. The
// response is replaced by a 503, but the mail is sent.
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

// An identity provider sets the time until which its user may be logged in. The zero time is a
// mistake of the program: if a provider sets no end, do not call EndBy.
func ExampleSession_EndBy() {
	type samlAssertion struct {
		User                string
		SessionNotOnOrAfter time.Time
	}
	_ = func(s *session.Session, assertion samlAssertion) {
		s.Login(assertion.User)
		s.EndBy(assertion.SessionNotOnOrAfter) // SAML 2.0 core, 2.7.2
	}
}

func ExampleManager_RevokeOthers() {
	sessions := session.Must(session.New(nil))
	_ = func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Login(s.User()) // the new password is stored
		if err := sessions.RevokeOthers(r.Context(), s); err != nil {
			http.Error(w, "Try again.", http.StatusServiceUnavailable)
		}
	}
}

// An operator ends the trial of a user in all sessions. Edit calls the function again if a
// request changes the session at the same time, so the plan that it reads is the one that it
// replaces.
func ExampleManager_Edit() {
	sessions := session.Must(session.New(nil))
	plan := session.NewKey[string]("plan")
	_ = func(ctx context.Context, user string) error {
		all, err := sessions.List(ctx, user)
		for _, info := range all {
			if p, _ := plan.Of(info); p != "trial" {
				continue
			}
			err = errors.Join(err, sessions.Edit(ctx, user, info.ID, func(s *session.Session) {
				if plan.Get(s) == "trial" {
					plan.Set(s, "free")
					s.AddFlash("info", "Your trial has ended.")
				}
			}))
		}
		return err // with an ErrEnded for each session that has ended meanwhile
	}
}

// A stream of events ends with its session. The handler of a WebSocket also returns when Done
// is closed.
func ExampleSession_Done() {
	closing := make(chan struct{}) // closed when the server begins to shut down
	server := &http.Server{}
	server.RegisterOnShutdown(func() { close(closing) })
	_ = func(w http.ResponseWriter, r *http.Request, news <-chan string) {
		s := session.From(r.Context())
		if s.User() == "" {
			w.WriteHeader(http.StatusNoContent) // tells an EventSource not to reconnect
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			select {
			case text := <-news:
				fmt.Fprintf(w, "data: %s\n\n", text)
				if http.NewResponseController(w).Flush() != nil {
					return
				}
			case <-s.Done():
				fmt.Fprint(w, "event: ended\ndata:\n\n") // so that the page can say it
				return
			case <-closing:
				return // Shutdown waits for every handler
			case <-r.Context().Done():
				return // the client has closed the connection
			}
		}
	}
}

// The login page tells users whose session has expired or was ended why they must log in.
func ExampleSession_Ended() {
	_ = func(w http.ResponseWriter, r *http.Request) {
		if session.From(r.Context()).Ended() {
			fmt.Fprint(w, "<p>Your session has ended. Please log in again.</p>")
		}
		fmt.Fprint(w, "<form method=post action=/login>…</form>")
	}
}

// A front end marks requests that its user has not caused with a header of its own; browsers
// mark prefetches.
func ExampleSession_MarkPassive() {
	background := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Background") != "" || r.Header.Get("Sec-Purpose") != "" {
				session.From(r.Context()).MarkPassive()
			}
			next.ServeHTTP(w, r)
		})
	}
	// A page asks for the time left with a passive request, and warns the user without moving
	// the end (WCAG 2, success criterion 2.2.1).
	left := func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		fmt.Fprint(w, int(time.Until(s.Expires()).Seconds()))
	}
	sessions := session.Must(session.New(nil))
	_ = sessions.Handler(background(sessions.RequireUser(http.HandlerFunc(left), nil)))
}

// A program can sign out both the owner and a possible attacker when a replaced token is used.
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

// An audit log in one line; metrics work the same way.
func ExampleOptions_OnEvent() {
	session.Must(session.New(&session.Options{
		OnEvent: func(ctx context.Context, e session.Event) {
			slog.InfoContext(ctx, "session", "kind", e.Kind, "id", e.ID, "user", e.User, "err", e.Err)
		},
	}))
}

// A rotation consists of two deployments: the new secret is added last, in every process, and
// then moved to the front. No user is logged out.
func ExampleOptions_Secrets() {
	newSecret, oldSecret := []byte(os.Getenv("NEW_SECRET")), []byte(os.Getenv("OLD_SECRET")) // 32 random bytes each
	session.Must(session.New(&session.Options{
		Secrets: [][]byte{newSecret, oldSecret}, // the first signs, all verify
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
