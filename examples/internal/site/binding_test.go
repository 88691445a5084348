package site

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/browsers"
)

// TestTLS checks the server with -tls from its first line to a session that is bound: a browser
// registers a key and proves it, and the page shows both.
func TestTLS(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, env{"PORT": "0"}.get, true, w, nil) }()
	out := bufio.NewScanner(r)
	out.Scan()
	address := strings.Fields(out.Text())[2]
	if !strings.HasPrefix(address, "https://localhost:") {
		t.Fatalf("the server printed %q", out.Text())
	}
	var hash string
	for hash == "" && out.Scan() {
		if _, rest, ok := strings.Cut(out.Text(), "--ignore-certificate-errors-spki-list="); ok {
			hash = strings.Fields(rest)[0]
		}
	}
	go io.Copy(io.Discard, r)
	client := firefox(t, address)
	var offer string
	client.http.Transport = &http.Transport{TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, // as Chromium does with this hash
		VerifyConnection: func(s tls.ConnectionState) error {
			if sum := sha256.Sum256(s.PeerCertificates[0].RawSubjectPublicKeyInfo); base64.StdEncoding.EncodeToString(sum[:]) != hash {
				return fmt.Errorf("the hash is %x, and the server printed %s", sum, hash)
			}
			return s.PeerCertificates[0].VerifyHostname("localhost")
		},
	}, ForceAttemptHTTP2: true}
	client.http.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		offer = req.Response.Header.Get("Secure-Session-Registration")
		return nil
	}
	client.page(client.post("/login", "userId", "alice"))(200, "Your browser’s key", "not yet", "challenge=&#34;••••••••&#34;")
	b := newBinder(client, offer)
	b.prove()
	b.prove()
	client.page(client.get("/dashboard"))(200, "bound to its browser", "This session is bound to this browser")
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestCopiedCookies checks what a browser is told that has copies of the cookies, or that cannot prove
// itself for a while, and that it sees nothing of the session.
func TestCopiedCookies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts, err := options(env{}.get)
		if err != nil {
			t.Fatal(err)
		}
		opts.Cookie.Insecure, opts.DeviceBound = false, 10*time.Minute
		owner := firefox(t, "https://localhost")
		owner.http.Transport = browsers.Handler(newApp(session.Must(session.New(opts)), nil))
		var offer string
		owner.http.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
			offer = r.Response.Header.Get("Secure-Session-Registration")
			return nil
		}
		owner.page(owner.post("/login", "userId", "alice"))(200, "Welcome back, alice!")
		b := newBinder(owner, offer)
		b.prove()
		b.prove()
		time.Sleep(10 * time.Second)

		refuse := func(c *client) {
			t.Helper()
			for path, status := range map[string]int{"/dashboard": 401, "/confirm": 401, "/login": 200, "/": 200} {
				got, body := c.get(path)
				c.page(got, body)(status, isNotBound, "<h1>Log in</h1>")
				if strings.Contains(body, "alice") {
					t.Errorf("%s shows the user: %s", path, body)
				}
			}
		}
		copied := firefox(t, owner.url) // the session cookie, from a log
		copied.http.Transport = owner.http.Transport
		for _, c := range owner.http.Cookies(owner.url) {
			if !strings.Contains(c.Name, "Bound") {
				copied.http.SetCookies(owner.url, c)
			}
		}
		refuse(copied)
		copied.header.Set("Accept", "*/*")
		copied.answer(copied.get("/dashboard"))(401, "Please log in.")

		jar := firefox(t, owner.url)
		jar.http = owner.http.Copy(t, owner.url)
		jar.page(jar.get("/dashboard"))(200, "Welcome back, alice!", "bound to its browser")
		time.Sleep(10 * time.Minute)
		refuse(jar)
		refuse(owner) // its browser has not refreshed
		b.prove()
		owner.page(owner.get("/dashboard"))(200, "Welcome back, alice!")
		refuse(jar)
		jar.page(jar.post("/login", "userId", "bob"))(200, "Welcome back, bob!", "not bound, or not yet")
	})
}

// A binder is the part of a browser that binds a session.
type binder struct {
	*client
	key                         *ecdsa.PrivateKey
	path, challenge, identifier string
}

// newBinder returns a binder with a new key. offer is the header of a login.
func newBinder(c *client, offer string) *binder {
	c.t.Helper()
	parts := regexp.MustCompile(`path="([^"]+)";challenge="([^"]+)"`).FindStringSubmatch(offer)
	if parts == nil {
		c.t.Fatalf("the login offers %q", offer)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	return &binder{client: c, key: key, path: parts[1], challenge: parts[2]}
}

// prove registers the key, or refreshes with it.
func (b *binder) prove() {
	b.t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	public, err := b.key.PublicKey.Bytes()
	if err != nil {
		b.t.Fatal(err)
	}
	header := `{"alg":"ES256","typ":"dbsc+jwt","jwk":{"kty":"EC","crv":"P-256","x":"` + encode(public[1:33]) + `","y":"` + encode(public[33:]) + `"}}`
	text := encode([]byte(header)) + "." + encode([]byte(`{"jti":"`+b.challenge+`"}`))
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, b.key, sum[:])
	if err != nil {
		b.t.Fatal(err)
	}
	request, _ := http.NewRequest("POST", b.url+b.path, nil)
	request.Header.Set("Secure-Session-Response", text+"."+encode(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)))
	if b.identifier != "" {
		request.Header.Set("Sec-Secure-Session-Id", b.identifier)
	}
	resp, err := b.http.Do(request)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	var is struct {
		Identifier string `json:"session_identifier"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&is); err != nil || resp.StatusCode != 200 {
		b.t.Fatalf("%s, %v", resp.Status, err)
	}
	b.identifier, b.challenge = is.Identifier, strings.Split(resp.Header.Get("Secure-Session-Challenge"), `"`)[1]
}
