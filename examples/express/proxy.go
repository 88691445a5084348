package main

import (
	"net/http"
	"net/http/httputil"
	"net/url"
)

// newProxy returns the one door: the routes that have moved go to Go, all others to
// Node. Moving a route is one line here.
func newProxy(goApp http.Handler, node *url.URL) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/dashboard", goApp)
	mux.Handle("/logout", goApp)
	mux.Handle("/style.css", goApp)
	mux.Handle("/", toNode(node))
	return mux
}

// toNode passes requests on, with the host that the browser asked for.
func toNode(node *url.URL) http.Handler {
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(node)
		r.SetXForwarded()
		r.Out.Host = r.In.Host
	}}
}
