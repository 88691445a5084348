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
	parts := regexp.MustCompile(`path="([^"]+)";challenge="([^"]+)"`).FindStringSubmatch(offer)
	if parts == nil {
		t.Fatalf("the login offers %q", offer)
	}

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	prove := func(header, challenge, identifier string) (id, next string) {
		t.Helper()
		text := b64([]byte(header)) + "." + b64([]byte(`{"jti":"`+challenge+`"}`))
		sum := sha256.Sum256([]byte(text))
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		request, _ := http.NewRequest("POST", address+parts[1], nil)
		request.Header.Set("Secure-Session-Response", text+"."+b64(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)))
		if identifier != "" {
			request.Header.Set("Sec-Secure-Session-Id", identifier)
		}
		resp, err := client.http.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var is struct {
			Identifier string `json:"session_identifier"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&is); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s, %v", resp.Status, err)
		}
		return is.Identifier, strings.Split(resp.Header.Get("Secure-Session-Challenge"), `"`)[1]
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	id, next := prove(`{"alg":"ES256","typ":"dbsc+jwt","jwk":{"kty":"EC","crv":"P-256","x":"`+b64(public[1:33])+`","y":"`+b64(public[33:])+`"}}`, parts[2], "")
	prove(`{"alg":"ES256","typ":"dbsc+jwt"}`, next, id)
	client.page(client.get("/dashboard"))(200, "bound to its browser", "This session is bound to this browser")
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
