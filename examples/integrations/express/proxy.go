package main

import (
	"net/http"
	"net/http/httputil"
	"net/url"
)

// newProxy returns the one door: the routes that have moved go to Go, all others to
// Node. Moving a route is one line here. isBehindProxy is whether all requests come from a
// proxy of ours, with TLS.
func newProxy(goApp http.Handler, node *url.URL, isBehindProxy bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/dashboard", goApp)
	mux.Handle("/logout", goApp)
	mux.Handle("/style.css", goApp)
	mux.Handle("/", toNode(node, isBehindProxy))
	return mux
}

// toNode passes requests on, with the host that the browser asked for. What a proxy of ours
// says of the browser's connection is passed on too: without X-Forwarded-Proto Express
// takes each request for plain http, and sets no Secure cookie. Anybody else could lie.
func toNode(node *url.URL, isBehindProxy bool) http.Handler {
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(node)
		r.Out.Host = r.In.Host
		if isBehindProxy {
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"] // to which this proxy is added
		}
		r.SetXForwarded()
		for _, name := range []string{"X-Forwarded-Proto", "X-Forwarded-Host"} {
			if said := r.In.Header[name]; isBehindProxy && len(said) > 0 {
				r.Out.Header[name] = said
			}
		}
	}}
}
