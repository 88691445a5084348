package site

import "regexp"

// isNotBound is what a browser is told that has the cookie of a session and not its key.
const isNotBound = "The cookie of this browser is that of a session that is bound to another browser, or this browser could not confirm just now that it is the one that logged in. Nothing of the session is shown. Reload the page in a moment, or log in."

// binding returns the steps by which a browser binds a session to itself, and whether each has
// happened. offer is the header by which the login has offered it, with its challenge masked.
func binding(offer string, isBound bool) []attribute {
	if offer == "" { // the server does not bind sessions
		return nil
	}
	return []attribute{
		{"The login", true, "The response asks your browser for a key: Secure-Session-Registration: " + offer},
		{"A key", isBound, "Your browser makes a key pair, in the TPM if there is one, and posts the public key. The answer sets a second cookie, good for a minute."},
		{"The first proof", isBound, "With its next request the browser signs a challenge. From ten seconds later on the first cookie alone opens nothing: copy it to another browser and see."},
		{"Every ten minutes", isBound, "While you use the site, your browser signs another challenge for another second cookie. A copy of both cookies opens nothing after ten minutes."},
	}
}

var challenge = regexp.MustCompile(`challenge="[^"]*"`)

// maskChallenge hides the challenge of an offer, because the holder of the challenge can register
// a key.
func maskChallenge(offer string) string {
	return challenge.ReplaceAllString(offer, `challenge="••••••••"`)
}
