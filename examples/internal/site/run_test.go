package site

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

type env map[string]string

func (e env) get(name string) string { return e[name] }

const secret = "a secret of at least 32 characters"

func TestEnvironment(t *testing.T) {
	for _, test := range []struct {
		name   string
		env    env
		refuse []string // parts of the error; none: the server starts
	}{
		{"nothing", env{}, nil},
		{"development with a secret", env{"SESSION_SECRET": secret}, nil},
		{"production", env{"APP_ENV": "production", "SESSION_SECRET": secret}, nil},
		{"production without a secret", env{"APP_ENV": "production"}, []string{"SESSION_SECRET is not set", "production"}},
		{"short secret", env{"SESSION_SECRET": secret[:31]}, []string{"SESSION_SECRET has 31 characters", "at least 32"}},
		{"short secret in production", env{"APP_ENV": "production", "SESSION_SECRET": secret[:31]}, []string{"at least 32"}},
		{"bytes are not characters", env{"SESSION_SECRET": strings.Repeat("ä", 31)}, []string{"has 31 characters"}},
		{"no port", env{"PORT": "eighty"}, []string{"eighty"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // the server stops as soon as it has started
			if test.env["PORT"] == "" {
				test.env["PORT"] = "0"
			}
			err := run(ctx, test.env.get, false, io.Discard, nil)
			if test.refuse == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			for _, part := range test.refuse {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("error %v, want one with %q", err, part)
				}
			}
			if err != nil && strings.Contains(err.Error(), secret[:31]) {
				t.Error("the error prints the secret")
			}
		})
	}
}

// TestRun checks that the server prints its address, serves there, and shuts down.
func TestRun(t *testing.T) {
	for _, test := range []struct {
		name   string
		env    env
		cookie string
	}{
		{"development", env{"PORT": "0"}, "; Path=/; HttpOnly; SameSite=Lax"},
		{"production", env{"PORT": "0", "APP_ENV": "production", "SESSION_SECRET": secret}, "; Path=/; HttpOnly; Secure; SameSite=Lax"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			r, w := io.Pipe()
			ended := make(chan error, 1)
			go func() { ended <- run(ctx, test.env.get, false, w, nil) }()
			out := bufio.NewScanner(r)
			out.Scan()
			address := strings.Fields(out.Text())[2]
			if !strings.HasPrefix(address, "http://localhost:") {
				t.Fatalf("the server printed %q", out.Text())
			}
			resp, err := http.Post(address+"/login", "application/x-www-form-urlencoded", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			cookie := resp.Header.Get("Set-Cookie")
			if name, rest, _ := strings.Cut(cookie, "="); !strings.HasSuffix(rest, test.cookie) ||
				(name == "__Host-Http-session") != (test.name == "production") {
				t.Errorf("cookie %q", cookie)
			}
			if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
				t.Errorf("Content-Security-Policy %q", csp)
			}
			stop()
			go io.Copy(io.Discard, r)
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAddress checks that other machines cannot log in without TLS.
func TestAddress(t *testing.T) {
	for insecure, want := range map[bool]string{true: "localhost:8080", false: ":8080"} {
		opts := &session.Options{Cookie: session.CookieOptions{Insecure: insecure}}
		if got := address(opts, "8080"); got != want {
			t.Errorf("Insecure %t: listens on %q, want %q", insecure, got, want)
		}
	}
}

// TestGracefulShutdown checks that an in-flight request is answered after the signal.
func TestGracefulShutdown(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, env{"PORT": "0"}.get, false, w, nil) }()
	out := bufio.NewScanner(r)
	out.Scan()
	address := strings.Fields(out.Text())[2]

	form, rest := io.Pipe()
	reading := make(chan struct{})
	request, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got100Continue: func() { close(reading) }, // the handler waits for the form
	}), "POST", address+"/login", form)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Expect", "100-continue")
	go func() {
		<-reading
		stop()
		out.Scan()
		io.WriteString(rest, "userId=alice")
		rest.Close()
	}()
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if string(body) != "Logged in and session created!" || out.Text() != "shutting down" {
		t.Errorf("response %q after %q", body, out.Text())
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestShutdownWithAnOpenPage checks that an open page does not delay the shutdown: its stream
// ends first.
func TestShutdownWithAnOpenPage(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, env{"PORT": "0"}.get, false, w, nil) }()
	out := bufio.NewScanner(r)
	out.Scan()
	c := firefox(t, strings.Fields(out.Text())[2])
	c.post("/login")
	_, lines := c.listen(c.sessionID())
	stop()
	go io.Copy(io.Discard, r)
	if line, more := <-lines; more {
		t.Errorf("%q", line)
	}
	if err := <-ended; err != nil { // an error means that the ten seconds of the shutdown have passed
		t.Error(err)
	}
}

// downStore fails every load while it is down.
type downStore struct {
	session.Store
	down atomic.Bool
}

func (s *downStore) Load(ctx context.Context, id string) (*session.Record, error) {
	if s.down.Load() {
		return nil, errors.New("down")
	}
	return s.Store.Load(ctx, id)
}

// TestStoreDown checks that no user is asked to log in while the store is down, because the
// store cannot say whether the user is logged in.
func TestStoreDown(t *testing.T) {
	store := &downStore{Store: session.NewMemoryStore(nil)}
	m := session.Must(session.New(&session.Options{
		Store: store, Secrets: [][]byte{[]byte(secret)}, Cookie: session.CookieOptions{Insecure: true},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) { w.WriteHeader(503) },
	}))
	c := curl(t, listen(t, newApp(m, nil)))
	c.post("/login")
	store.down.Store(true)
	c.answer(c.get("/dashboard"))(503, "")
	c.answer(c.post("/devices/revoke-all"))(503, "")
	c.answer(c.post("/login"))(503, "")
	store.down.Store(false)
	c.answer(c.get("/dashboard"))(200, "Welcome back, user123!")
}

func TestWords(t *testing.T) {
	for _, test := range []struct {
		ago  time.Duration
		want string
	}{
		{-time.Second, "just now"}, {59 * time.Second, "just now"}, {time.Minute, "1 minute ago"}, {80 * time.Minute, "80 minutes ago"},
		{90 * time.Minute, "2 hours ago"}, {46 * time.Hour, "46 hours ago"}, {47 * time.Hour, "2 days ago"},
	} {
		if got := ago(test.ago); got != test.want {
			t.Errorf("ago(%v) = %q, want %q", test.ago, got, test.want)
		}
	}
	for agent, want := range map[string]string{
		"": "Unknown client", "curl/8.5.0": "curl", "Mozilla/5.0": "Unknown client",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0":                  "Edge on Windows",
		"Mozilla/5.0 (Linux; Android 16) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Mobile Safari/537.36":                                   "Chrome on Android",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1":        "Safari on iPhone",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15":                          "Safari on Mac",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/141.0.7390.41 Mobile/15E148 Safari/604.1": "Chrome on iPhone",
	} {
		if got := describe(agent); got != want {
			t.Errorf("describe(%q) = %q, want %q", agent, got, want)
		}
	}
}
