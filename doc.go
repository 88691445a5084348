// Package session gives the requests of an http.Handler their sessions: values
// kept on the server, found again by a signed cookie, or by a token in a header
// (Options.Bearer).
//
//	var visits = session.NewKey[int]("visits")
//
//	func main() {
//		sessions := session.Must(session.New(nil))
//		http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
//			s := session.From(r.Context())
//			visits.Update(s, func(n int) int { return n + 1 })
//			fmt.Fprintln(w, "Visits:", visits.Get(s))
//		})
//		http.ListenAndServe(":8080", sessions.Handler(http.DefaultServeMux))
//	}
//
// (With plain HTTP, as here, a browser sends the Secure cookie back to
// localhost at best; Options.Cookie.Insecure is for development.)
//
// # One request
//
// Manager.Handler puts a Session into the request's context and does nothing
// else: a request that never uses it makes no store call. The first use loads
// the session. Changes stay in memory and are committed once, just before the
// first byte of the response; what is changed after it, in a session that the
// browser already holds, is saved when the handler returns.
//
// # Twenty requests at once
//
// A commit is a compare-and-swap on the record's version. Whoever comes second
// reads the newer record, applies the changes that its own request made, in
// their order, and tries again. Requests that change different values all
// keep theirs; Key.Update and AddFlash are atomic. Logout, Revoke and a Login as
// another user put a tombstone over the record: a slow request can neither bring
// it back nor overwrite the browser's newer cookie.
//
// A token is an id and a key. Renew, Remember, a Login of the same user and
// Options.RenewAfter give the session another key under its id, and no user is
// signed out by it. After an explicit renewal the previous key shows the session as
// it was just before, for Options.RenewGrace: in-flight requests are answered and
// keep what they change, and an attacker who has stolen it learns nothing new. After
// an automatic renewal the previous key stays valid until ten seconds after the new
// key was first presented. Later it is ErrReplaced, and EventReplayed.
//
// What must not happen twice, such as the use of a refresh token, is done by one of
// the requests, and the others wait for it: Key.Refresh.
//
// # Long requests
//
// A WebSocket or event stream waits for Session.Done, which is closed when its
// session has ended, in whatever process, or its token was renewed explicitly by
// another request and the grace is over. What is open or polls is not in use: a poll
// says Session.MarkPassive, and a message from the user Session.Save.
//
// # When things fail
//
// A store that fails is never mistaken for a user who is logged out: the
// response is replaced by Options.ErrorHandler's, 503 by default. What a
// handler does outside its response (sending mail, charging a card) it guards
// with errors.Is(s.Err(), ErrStore).
//
// # Security
//
// The defaults are the safe ones: a __Host-Http- cookie, HttpOnly, Secure,
// SameSite=Lax, for as long as the browser is open; one hour idle, 24 hours in
// all, both counted on the server. They follow OWASP ASVS 5, chapters 3.3 and 7,
// NIST SP 800-63B-4 and RFC 6265bis; the options name the sections, and
// docs/asvs.md says what is met by default.
package session
