// Package crosssite tells from a request's headers whether another site made it, and
// which cookies a browser keeps back from it.
package crosssite

import (
	"net/http"
	"strings"
)

// Is reports whether another site made the request, as far as its headers tell (Fetch
// Metadata; Fetch, 3.2, for Origin).
func Is(r *http.Request) bool {
	switch site := first(r.Header["Sec-Fetch-Site"]); {
	case site == "cross-site":
		return true
	case site == "": // browsers before 2023, and all by plain http: as http.CrossOriginProtection
		switch r.Method {
		case http.MethodGet, http.MethodHead, http.MethodOptions:
			return false
		}
		return isForeign(first(r.Header["Origin"]), r.Host)
	case isForwardedNavigation(r.Header): // Firefox and WebKit: same-origin, whichever site it came from
		if referer := first(r.Header["Referer"]); referer != "" {
			return isForeign(referer, r.Host)
		}
		return isForeign(first(r.Header["Origin"]), r.Host)
	}
	return false
}

// Withholds reports whether a browser keeps cookies of this SameSite back from r, which
// another site made (RFC 6265bis, 5.6.7.1 and 5.8.3).
func Withholds(r *http.Request, mode http.SameSite) bool {
	switch mode {
	case http.SameSiteStrictMode:
		return true
	case http.SameSiteLaxMode:
		isRead := r.Method == http.MethodGet || r.Method == http.MethodHead
		return !isRead || first(r.Header["Sec-Fetch-Dest"]) != "document" && !isForwardedNavigation(r.Header)
	}
	return false
}

// isForwardedNavigation reports whether a service worker passed a navigation on, as
// e.respondWith(fetch(e.request)) does. For SameSite it is a navigation all the same.
func isForwardedNavigation(h http.Header) bool {
	mode := first(h["Sec-Fetch-Mode"])
	return first(h["Sec-Fetch-Dest"]) == "empty" && (mode == "navigate" || mode == "same-origin")
}

// isForeign reports whether a URL, or the origin "null", is of another host. An
// empty one tells nothing.
func isForeign(url, host string) bool {
	if url == "" {
		return false
	}
	_, rest, _ := strings.Cut(url, "://")
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	return !strings.EqualFold(rest, host)
}

// first returns the first value of a header field, or "".
func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
