// Package session provides server-side sessions for net/http. Values are kept in a [Store];
// the client holds only a signed token, in a cookie or in a header ([Options].Bearer).
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
// The cookie is Secure. Over plain HTTP, as here, some browsers keep it on localhost and no
// browser keeps it elsewhere; Options.Cookie.Insecure is for development.
//
// # Request lifecycle
//
// [Manager.Handler] puts a [Session] into the context of the request. A request whose handler
// does not use the session makes no store call and sets no header. The first use loads the
// session. Changes stay in memory and are committed once, just before the first byte of the
// response. Changes that are made after the first byte, in a session that the client already
// holds, are committed when the handler returns; changes that are made after that need
// [Session.Save]. A panic of the handler drops changes that are not committed, except Logout.
//
// # Concurrent requests
//
// A commit is a compare-and-swap on [Record].Version. If another request has committed first,
// the changes are reapplied to the newer record, in order, and the commit is retried. Changes
// of different values are all kept. [Key.Update] and [Session.AddFlash] are atomic. What a
// handler saw before the commit is not final: [Key.Take] and [Key.UpdateNow] exist for values
// that may be used once or n times. [Key.Refresh] lets one request do what must not be done
// twice, such as the use of a refresh token, while the others wait for the result.
//
// Logout, the Revoke methods and a Login as another user replace the record by a tombstone. An
// in-flight request can neither bring the session back nor overwrite the newer cookie.
//
// A token consists of an id and a key. [Session.Renew], [Session.Remember], a [Session.Login] of
// the same user (explicit renewals) and Options.RenewAfter (automatic renewal) replace the key
// under the same id. Neither signs a user out:
//
//   - After an explicit renewal, a request with the previous key sees the session as it was just
//     before, for Options.RenewGrace. In-flight requests are answered and their changes are kept,
//     but an attacker who has stolen the previous key learns nothing new.
//   - After an automatic renewal the previous key stays valid until ten seconds after the new
//     key was first presented.
//
// After that the previous key gives [ErrReplaced], and its use is an [EventReplayed].
//
// # Long-lived requests
//
// [Session.Done] is closed when the session has ended, in any process, or when another request
// has renewed it explicitly and the grace has ended: select on it in WebSockets and event
// streams. An open connection does not count as use of the session. Requests that the page makes
// by itself call [Session.MarkPassive]; a message of the user on a connection calls
// [Session.Save].
//
// # Errors
//
// A failing store is never mistaken for a user who is logged out: the response is replaced by
// that of Options.ErrorHandler, by default 503 with Retry-After. Before a handler does something
// outside its response, such as sending mail, it checks errors.Is(s.Err(), [ErrStore]). A mistake
// of the program, such as a value that cannot be encoded, is answered with 500. [Session.Err]
// and [Session.Save] return the error in both cases.
//
// # Caching
//
// A response whose handler has used the session has "Vary: Cookie". If the session is stored,
// Cache-Control is "no-store" for a logged-in user and "private" for an anonymous session,
// unless the handler has set Cache-Control. A response that sets the cookie is always
// "no-store".
//
// # Security
//
// The defaults are safe: the cookie is named __Host-Http-session, and is HttpOnly, Secure and
// SameSite=Lax; it lasts until the browser is closed. A session ends after one hour without use
// and after 24 hours in any case, both measured by the server. A leaked store does not reveal
// valid tokens. The defaults follow OWASP ASVS 5, chapters 3.3 and 7, NIST SP 800-63B-4 and
// RFC 6265bis. Each option names its section, and docs/asvs.md lists what is met by default.
package session
