package servers

import (
	"bufio"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// Nginx starts an nginx that serves these locations by HTTPS, with the certificate of
// net/http/httptest. There is a zone for proxy_cache, "cache".
func Nginx(t testing.TB, locations string) *Server {
	t.Helper()
	path, dir := Program(t, "nginx"), newFolder(t, "").path
	writeCertificate(t, dir)
	user := "" // an unprivileged one could not reach the folder
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	conf := filepath.Join(dir, "nginx.conf")
	answers := func(addr string) bool { return probe(addr, "", func(*bufio.Reader) bool { return true }) }
	return startOnPort(t, Command{Dir: dir}, answers, func(port string) []string {
		text := fmt.Sprintf(`
daemon off;
%[4]s
worker_processes 1;
pid %[1]s/pid;
error_log stderr warn;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	proxy_cache_path %[1]s/cache keys_zone=cache:1m;
	server {
		listen 127.0.0.1:%[2]s ssl;
		ssl_certificate %[1]s/cert.pem;
		ssl_certificate_key %[1]s/key.pem;
		proxy_http_version 1.1;
		%[3]s
	}
}
`, dir, port, locations, user)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{path, "-p", dir, "-c", conf}
	})
}

// writeCertificate writes the certificate that net/http/httptest has, and its key.
func writeCertificate(t testing.TB, dir string) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	pair := s.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		"key.pem":  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
