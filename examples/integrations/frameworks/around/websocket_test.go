package around

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
)

// chats are handlers that store each message in the session, confirm it, and end with the
// session.
var chats = map[string]http.HandlerFunc{
	"coder/websocket": func(w http.ResponseWriter, r *http.Request) {
		c, err := coder.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		s := session.From(r.Context())
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		go func() { // ends when the handler returns
			select {
			case <-s.Done():
				c.Close(coder.StatusPolicyViolation, "signed out")
			case <-ctx.Done():
			}
		}()
		for {
			_, text, err := c.Read(ctx)
			if err != nil {
				return
			}
			value.Set(s, string(text))
			if s.Save(ctx) != nil || c.Write(ctx, coder.MessageText, []byte("saved")) != nil {
				return
			}
		}
	},
	"gorilla/websocket": func(w http.ResponseWriter, r *http.Request) {
		c, err := new(gorilla.Upgrader).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		s := session.From(r.Context())
		over := make(chan struct{})
		defer close(over)
		go func() {
			select {
			case <-s.Done():
				c.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(gorilla.ClosePolicyViolation, "signed out"), time.Now().Add(time.Minute))
				c.Close()
			case <-over:
			}
		}()
		for {
			_, text, err := c.ReadMessage()
			if err != nil {
				return
			}
			value.Set(s, string(text))
			if s.Save(r.Context()) != nil || c.WriteMessage(gorilla.TextMessage, []byte("saved")) != nil {
				return
			}
		}
	},
}

// TestWebSocket checks that a WebSocket stores changes with Save, and is closed when its
// session ends. Both libraries support WebSockets over HTTP/1.1 only. TestServers covers event
// streams over HTTP/2 and 3.
func TestWebSocket(t *testing.T) {
	for name, chat := range chats {
		t.Run(name, func(t *testing.T) {
			m := newManager(t)
			server := httptest.NewServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/chat" {
					chat(w, r)
				} else {
					deeds(w, r)
				}
			})))
			defer server.Close()
			_, header := get(t, server.Client(), server.URL+"/login", "")
			cookie, _, _ := strings.Cut(header.Get("Set-Cookie"), ";")

			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			c, _, err := coder.Dial(ctx, server.URL+"/chat", &coder.DialOptions{HTTPHeader: http.Header{"Cookie": {cookie}}})
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseNow()
			for _, text := range []string{"one", "two"} {
				if err := c.Write(ctx, coder.MessageText, []byte(text)); err != nil {
					t.Fatal(err)
				}
				if _, answer, err := c.Read(ctx); err != nil || string(answer) != "saved" {
					t.Fatalf("%q, %v", answer, err)
				}
				if got, _ := get(t, server.Client(), server.URL+"/who", cookie); got != "alice "+text {
					t.Errorf("the session has %q", got)
				}
			}
			if err := m.RevokeAll(ctx, "alice"); err != nil {
				t.Fatal(err)
			}
			if _, _, err := c.Read(ctx); coder.CloseStatus(err) != coder.StatusPolicyViolation {
				t.Errorf("after the end: %v", err)
			}
		})
	}
}
