package site

import "strings"

// attribute is one part of a Set-Cookie header, or a part that is missing from it, and its
// effect.
type attribute struct {
	Text  string // the part in the header
	Sent  bool
	Means string
}

// mask hides the value of a Set-Cookie header, because the value gives access to the session.
// The page must not show it, and the session must not store it, because then a leaked store
// would reveal it.
func mask(line string) string {
	name, rest, _ := strings.Cut(line, "=")
	value, attributes, _ := strings.Cut(rest, ";")
	return name + "=" + value[:min(4, len(value))] + "••••••••;" + attributes
}

var meanings = map[string]string{
	"path":     "Sent with every request to this site. A narrower path would be no protection.",
	"domain":   "Sent to this domain and all its subdomains.",
	"max-age":  "Remember me: the browser keeps the cookie for this many seconds, even when it is closed. The server keeps its own clock and decides.",
	"httponly": "No script can read it, so that one that slips into a page cannot carry it away.",
	"secure":   "Only ever sent over HTTPS.",
	"samesite": "Left out of what other sites make the browser send, but for following a link to here.",
}

// missing are the attributes whose absence the page explains.
var missing = []attribute{
	{Text: "Max-Age", Means: "The browser forgets the cookie when it closes. “Remember me” sends it."},
	{Text: "Secure", Means: "This is development, over plain HTTP. APP_ENV=production sends it."},
	{Text: "Domain", Means: "Good: only this very host gets the cookie, none of its subdomains."},
}

// explain splits a masked Set-Cookie header into its parts.
func explain(line string) []attribute {
	if line == "" {
		return nil
	}
	parts := strings.Split(line, "; ")
	name, _, _ := strings.Cut(parts[0], "=")
	means := "The name and a ticket for your session: a random number, signed by the server. All else stays on the server."
	if strings.HasPrefix(name, "__Host-Http-") {
		means += " With __Host-Http- in its name the browser takes it only from this host, over HTTPS, for all paths, and from no script."
	}
	all := []attribute{{parts[0], true, means}}
	sent := map[string]bool{}
	for _, part := range parts[1:] {
		name, _, _ := strings.Cut(strings.ToLower(part), "=")
		sent[name] = true
		all = append(all, attribute{part, true, meanings[name]})
	}
	for _, a := range missing {
		if !sent[strings.ToLower(a.Text)] {
			all = append(all, a)
		}
	}
	return all
}
