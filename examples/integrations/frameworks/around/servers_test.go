package around

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/quic-go/quic-go/http3"
)

// servers start servers other than the HTTP/1.1 server of httptest, and return a client for
// each.
var servers = map[string]func(t *testing.T, h http.Handler) (*http.Client, string){
	"HTTP/2": func(t *testing.T, h http.Handler) (*http.Client, string) {
		s := httptest.NewUnstartedServer(h)
		s.EnableHTTP2 = true
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.Client(), s.URL
	},
	"HTTP/2 without TLS": func(t *testing.T, h http.Handler) (*http.Client, string) {
		var protocols http.Protocols
		protocols.SetUnencryptedHTTP2(true)
		s := httptest.NewUnstartedServer(h)
		s.Config.Protocols = &protocols
		s.Start()
		t.Cleanup(s.Close)
		return &http.Client{Transport: &http.Transport{Protocols: &protocols}}, s.URL
	},
	"HTTP/3": func(t *testing.T, h http.Handler) (*http.Client, string) {
		s := httptest.NewTLSServer(nil) // for its certificate
		t.Cleanup(s.Close)
		conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		server := &http3.Server{Handler: h, TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: s.TLS.Certificates})}
		go server.Serve(conn)
		transport := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		t.Cleanup(func() {
			transport.Close()
			server.Close()
			conn.Close()
		})
		return &http.Client{Transport: transport}, "https://" + conn.LocalAddr().String()
	},
}

func TestServers(t *testing.T) {
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			m := newManager(t)
			c, url := start(t, m.Handler(http.HandlerFunc(deeds)))
			_, header := get(t, c, url+"/login", "")
			cookie, _, _ := strings.Cut(header.Get("Set-Cookie"), ";")
			if got, _ := get(t, c, url+"/who", cookie); got != "alice" {
				t.Errorf("who: %q, %v", got, header)
			}
			if got, _ := get(t, c, url+"/late", cookie); got != "first" {
				t.Errorf("late: %q", got)
			}
			if got, _ := get(t, c, url+"/who", cookie); got != "alice late" {
				t.Errorf("after a late change: %q", got)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r, err := http.NewRequestWithContext(ctx, "GET", url+"/flush", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Cookie", cookie)
			resp, err := c.Do(r) // returns only if the first line was flushed
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			lines := bufio.NewReader(resp.Body)
			if line, err := lines.ReadString('\n'); line != "first\n" {
				t.Fatalf("flushed %q, %v", line, err)
			}
			if err := m.RevokeAll(ctx, "alice"); err != nil {
				t.Fatal(err)
			}
			if line, err := lines.ReadString('\n'); line != "ended\n" {
				t.Errorf("after the end of the session: %q, %v", line, err)
			}
		})
	}
}
