package main

import (
	"net/http"
	"net/http/httputil"
	"net/url"
)

// newProxy returns the proxy in front of both apps: routes that have moved go to Go, all others
// to Node. One line here moves a route. isBehindProxy is whether all requests come from a
// trusted proxy with TLS.
func newProxy(goApp http.Handler, node *url.URL, isBehindProxy bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/dashboard", goApp)
	mux.Handle("/logout", goApp)
	mux.Handle("/style.css", goApp)
	mux.Handle("/", toNode(node, isBehindProxy))
	return mux
}

// toNode forwards requests with the host that the browser requested. The forwarding headers of
// a trusted proxy are passed on: without X-Forwarded-Proto Express takes each request for plain
// HTTP, and sets no Secure cookie. Those of other clients are removed, because they may be
// forged.
func toNode(node *url.URL, isBehindProxy bool) http.Handler {
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(node)
		r.Out.Host = r.In.Host
		if isBehindProxy {
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"] // httputil appends the address of this client
		}
		r.SetXForwarded()
		for _, name := range []string{"X-Forwarded-Proto", "X-Forwarded-Host"} {
			if said := r.In.Header[name]; isBehindProxy && len(said) > 0 {
				r.Out.Header[name] = said
			}
		}
	}}
}
