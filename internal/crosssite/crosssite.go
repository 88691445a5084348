// Package crosssite determines from the headers of a request whether another site made it, and
// which cookies the browser withholds from it.
package crosssite

import (
	"net/http"
	"strings"
)

// Is reports whether another site made the request, as far as its headers show (Fetch Metadata;
// Fetch, 3.2, for Origin).
func Is(r *http.Request) bool {
	switch site := first(r.Header["Sec-Fetch-Site"]); {
	case site == "cross-site":
		return true
	case site == "": // browsers before 2023, and all over plain HTTP: the same rule as http.CrossOriginProtection
		switch r.Method {
		case http.MethodGet, http.MethodHead, http.MethodOptions:
			return false
		}
		return isForeign(first(r.Header["Origin"]), r.Host)
	case isForwardedNavigation(r.Header): // Firefox and WebKit send same-origin, whichever site made the request
		if referer := first(r.Header["Referer"]); referer != "" {
			return isForeign(referer, r.Host)
		}
		return isForeign(first(r.Header["Origin"]), r.Host)
	}
	return false
}

// Withholds reports whether a browser withholds cookies with the SameSite attribute mode from
// r, which another site made (RFC 6265bis, 5.6.7.1 and 5.8.3).
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

// isForwardedNavigation reports whether a service worker forwarded a navigation, as
// e.respondWith(fetch(e.request)) does. SameSite treats such a request as a navigation.
func isForwardedNavigation(h http.Header) bool {
	mode := first(h["Sec-Fetch-Mode"])
	return first(h["Sec-Fetch-Dest"]) == "empty" && (mode == "navigate" || mode == "same-origin")
}

// isForeign reports whether url, or the origin "null", belongs to another host. It returns
// false for an empty url.
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
