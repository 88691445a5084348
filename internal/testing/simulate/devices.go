package simulate

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/coatcheck/session"
)

// Browsers that bind sessions to a key: Options.DeviceBound. The package internal/device describes
// the protocol.

const (
	secondPrefix = "__Host-Bound-session-" // of the names of second cookies; the rest is a part of the id of the session
	devicePath   = "/.session/device/" + cookieName
	deviceGrace  = 10 * time.Second // for which nothing is demanded after the first refresh
	firstProof   = time.Minute      // life of the second cookie that answers a registration
	refreshAhead = 2 * time.Minute  // before its end a browser refreshes the second cookie
	maxTries     = 5                // signatures that a browser makes for one refresh
)

// A binding is what a browser keeps of one session.
type binding struct {
	s          *sessionTruth
	key        *ecdsa.PrivateKey
	identifier string
	challenge  string        // of the next proof; "": none
	refreshing chan struct{} // closed at the end of the refresh in progress; nil: none
	skipped    string        // why the last refresh has failed; "": it has not
	cookie     string        // name of the second cookie that it maintains
}

// A secondCookie is the second cookie of a session.
type secondCookie struct {
	name, value string
	ends        time.Time // when the browser deletes it
}

// canBind reports whether the browser has keys: two of three do.
func (b *browser) canBind() bool { return b.w.plan.DeviceBound > 0 && b.actor.Seed%3 > 0 }

// proves refreshes the second cookies, before a request if the browser lacks one, or beside the
// request if one ends soon. skipped says why the browser could not refresh.
func (b *browser) proves(task int) (skipped string) {
	for _, s := range slices.Clone(b.bindings) {
		switch left := time.Until(b.endOf(s.cookie)); {
		case left <= 0:
			if why := b.refresh(task, s); why != "" {
				skipped = why
			}
		case left < refreshAhead && s.refreshing == nil:
			b.w.start(func(task int) { b.refresh(task, s) })
		}
	}
	return skipped
}

// seconds returns the second cookies that the browser has.
func (b *browser) seconds() []secondCookie {
	b.jar = slices.DeleteFunc(b.jar, func(c secondCookie) bool { return !c.ends.After(time.Now()) })
	return slices.Clone(b.jar)
}

// endOf returns when the browser deletes the second cookie of a name, or the zero time.
func (b *browser) endOf(name string) time.Time {
	for _, c := range b.jar {
		if c.name == name {
			return c.ends
		}
	}
	return time.Time{}
}

// drop deletes the second cookie of a name.
func (b *browser) drop(name string) {
	b.jar = slices.DeleteFunc(b.jar, func(c secondCookie) bool { return c.name == name })
}

// refresh gets another second cookie for a session, or waits for the refresh in progress.
func (b *browser) refresh(task int, s *binding) (skipped string) {
	if s.refreshing != nil {
		<-s.refreshing
		b.w.park(place{task: task, call: "refreshed"})
		return s.skipped
	}
	s.refreshing = make(chan struct{})
	defer func() {
		close(s.refreshing)
		s.refreshing, s.skipped = nil, skipped
	}()
	for range maxTries {
		h := http.Header{"Sec-Secure-Session-Id": {s.identifier}}
		if s.challenge != "" {
			h.Set("Secure-Session-Response", proof(s.key, s.challenge, false))
		}
		x := b.newProof(s.s, "refreshes the second cookie of")
		answer := b.w.post(task, x, h)
		next := challengeIn(answer)
		switch {
		case answer == nil:
			return "unreachable"
		case answer.StatusCode == http.StatusOK:
			b.accept(x, s, answer)
			return ""
		case answer.StatusCode >= 500:
			return "server_error"
		case next == "":
			b.w.truth.violation(x, "the endpoint", "an answer %d without a challenge, so the browser forgets the session", answer.StatusCode)
			b.forget(s)
			return ""
		}
		s.challenge = next
	}
	b.w.log(nil, "%s forgets the key of session %d after %d refusals", b.name, s.s.number, maxTries)
	b.forget(s)
	return ""
}

var registration = regexp.MustCompile(`^\(ES256 RS256\);path="([^"]+)";challenge="([^"]+)"$`)

// register registers a key if a response offers that. A connection that is lost is tried again,
// with the same proof.
func (b *browser) register(x *exchange) {
	parts := registration.FindStringSubmatch(x.headers.Get("Secure-Session-Registration"))
	if parts == nil || !b.canBind() || x.storedIn == nil {
		return
	}
	key := newKey(b.nextRNG())
	s := &binding{s: x.storedIn, key: key}
	h := http.Header{"Secure-Session-Response": {proof(key, parts[2], true)}}
	b.w.start(func(task int) {
		for range 2 {
			x := b.newProof(s.s, "registers a key for")
			answer := b.w.post(task, x, h)
			if answer == nil {
				continue
			}
			if answer.StatusCode == http.StatusOK {
				b.accept(x, s, answer)
			}
			return
		}
	})
}

// accept follows the instructions of a 200.
func (b *browser) accept(x *exchange, s *binding, answer *http.Response) {
	var is struct {
		Identifier string `json:"session_identifier"`
		Continue   *bool
	}
	if err := json.NewDecoder(answer.Body).Decode(&is); err != nil {
		b.w.truth.violation(x, "the endpoint", "the instructions are no JSON: %v", err)
	}
	b.forget(s)
	if is.Continue != nil && !*is.Continue {
		b.w.log(x, "the answer ends the binding of session %d in %s", s.s.number, b.name)
		return
	}
	b.bindings = slices.DeleteFunc(b.bindings, func(o *binding) bool { return o.identifier == is.Identifier })
	b.bindings = append(b.bindings, s)
	s.identifier, s.challenge = is.Identifier, challengeIn(answer)
	for _, c := range answer.Cookies() {
		s.cookie = c.Name
		b.drop(c.Name)
		b.jar = append(b.jar, secondCookie{c.Name, c.Value, time.Now().Add(time.Duration(c.MaxAge) * time.Second)})
		b.w.log(x, "the answer reaches %s, which has a second cookie of session %d", b.name, s.s.number)
	}
}

func (b *browser) forget(s *binding) {
	b.bindings = slices.DeleteFunc(b.bindings, func(o *binding) bool { return o == s })
}

// newProof returns a request to the endpoint.
func (b *browser) newProof(s *sessionTruth, does string) *exchange {
	return &exchange{sender: b.name, rng: b.w.split(b.nextRNG()), browser: b, passive: true, proves: s, does: does}
}

// nextRNG returns the randomness of the next key or proof. It is not that of the step, because
// proofs run beside the steps.
func (b *browser) nextRNG() *rand.Rand {
	b.proofs++
	return b.actor.rng(-b.proofs)
}

// newKey returns a key that depends on rng alone, as all that the simulator does.
func newKey(rng *rand.Rand) *ecdsa.PrivateKey {
	for {
		var raw [32]byte
		for i := range raw {
			raw[i] = byte(rng.Uint32())
		}
		if key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw[:]); err == nil {
			return key
		}
	}
}

var challengeHeader = regexp.MustCompile(`^"([^"]+)";id="`)

// challengeIn returns the challenge in an answer, or "".
func challengeIn(answer *http.Response) string {
	if answer == nil {
		return ""
	}
	if parts := challengeHeader.FindStringSubmatch(answer.Header.Get("Secure-Session-Challenge")); parts != nil {
		return parts[1]
	}
	return ""
}

// post sends a request to the endpoint. It returns nil if the answer is lost.
func (w *world) post(task int, x *exchange, h http.Header) *http.Response {
	w.prepare(task, x)
	w.log(x, "is sent by %s to process %d; it %s session %d", x.sender, x.p.n, x.does, x.proves.number)
	r := newRequest(devicePath, h)
	recorder := httptest.NewRecorder()
	w.busy++
	w.handle(x, recorder, r, func(http.ResponseWriter, *http.Request) {
		w.truth.violation(x, "the endpoint", "a proof has reached the handler")
	})
	w.busy--
	answer := recorder.Result()
	x.ended, x.status = time.Now(), answer.StatusCode
	// As in fate, the random numbers do not depend on the faults of the plan.
	isLost, isLate := x.rng.IntN(8) == 0, x.rng.IntN(4) == 0
	delay := someTime(x.rng, 20*time.Second)
	w.log(x, "is answered %s%s", x.statusText(), eventsOf(x))
	w.truth.answered(x, answer)
	switch {
	case x.p.isDead:
		return nil
	case w.plan.Faults&LostResponses == 0:
		return answer
	case isLost:
		w.log(x, "the answer is lost")
		w.truth.count("fault: a lost answer of the endpoint")
		return nil
	case isLate:
		w.sleep(task, delay)
	}
	return answer
}

// proof returns a JSON Web Signature over a challenge, with the public key if withKey.
func proof(key *ecdsa.PrivateKey, challenge string, withKey bool) string {
	encoded := base64.RawURLEncoding.EncodeToString
	header := `{"alg":"ES256","typ":"dbsc+jwt"}`
	if withKey {
		public, err := key.PublicKey.Bytes()
		if err != nil {
			panic(err)
		}
		header = fmt.Sprintf(`{"alg":"ES256","jwk":{"crv":"P-256","kty":"EC","x":%q,"y":%q},"typ":"dbsc+jwt"}`, encoded(public[1:33]), encoded(public[33:]))
	}
	text := encoded([]byte(header)) + "." + encoded([]byte(`{"jti":"`+challenge+`"}`))
	sum := sha256.Sum256([]byte(text))
	signature, err := key.Sign(nil, sum[:], crypto.SHA256) // not random (RFC 6979)
	var numbers struct{ R, S *big.Int }
	if err == nil {
		_, err = asn1.Unmarshal(signature, &numbers)
	}
	if err != nil {
		panic(err)
	}
	return text + "." + encoded(append(numbers.R.FillBytes(make([]byte, 32)), numbers.S.FillBytes(make([]byte, 32))...))
}

// stealProof lets a thief use the endpoint with a key of their own: they have read the identifier
// of a session, and may have the challenge of a registration.
func (w *world) stealProof(task int, sender string, b *browser) {
	if len(b.bindings) == 0 {
		return
	}
	key := newKey(b.nextRNG())
	s := b.bindings[len(b.bindings)-1]
	x := b.newProof(s.s, "refreshes, without the key, the second cookie of")
	x.sender, x.browser = sender, nil
	answer := w.post(task, x, http.Header{"Sec-Secure-Session-Id": {s.identifier}})
	challenge := challengeIn(answer)
	if challenge == "" {
		return
	}
	for _, withKey := range []bool{false, true} {
		h := http.Header{"Sec-Secure-Session-Id": {s.identifier}, "Secure-Session-Response": {proof(key, challenge, withKey)}}
		if withKey {
			h.Del("Sec-Secure-Session-Id") // as a registration
		}
		x := b.newProof(s.s, "proves, by another key,")
		x.sender, x.browser = sender, nil
		w.post(task, x, h)
	}
}

// A secondTruth is a second cookie that the endpoint has issued.
type secondTruth struct {
	s   *sessionTruth
	end time.Time
}

// answered judges an answer of the endpoint.
func (t *truth) answered(x *exchange, answer *http.Response) {
	cookies := answer.Cookies()
	switch code := answer.StatusCode; {
	case x.p.isDead:
		return
	case code != http.StatusOK && code != http.StatusForbidden && code != http.StatusServiceUnavailable:
		t.violation(x, "the endpoint", "the status %d, at which browsers forget the session", code)
	case code == http.StatusServiceUnavailable && !x.isDisturbed && !x.isRefused && time.Since(t.failedAt) > time.Minute:
		t.violation(x, "no failure while the store works", "%d", code)
	case code != http.StatusOK && len(cookies) > 0, len(cookies) > 1:
		t.violation(x, "the endpoint", "%d cookies in an answer %d", len(cookies), code)
	case len(cookies) == 0:
		return
	case x.browser == nil:
		t.violation(x, "only the key opens a bound session", "a thief has got a second cookie")
	case !strings.HasPrefix(cookies[0].Name, secondPrefix):
		t.violation(x, "the endpoint", "it sets the cookie %s", cookies[0].Name)
	}
	if len(cookies) == 0 {
		return
	}
	life := t.w.plan.DeviceBound
	if strings.HasPrefix(x.does, "registers") {
		life = firstProof + deviceGrace
		t.count("registrations of keys")
	} else {
		t.count("refreshes of second cookies")
	}
	end := x.sent.Add(life).Truncate(time.Millisecond) // as precise as in the cookie
	t.seconds[cookies[0].Value] = &secondTruth{x.proves, end}
}

// isProven reports whether a request has a second cookie for a session that is good.
func (t *truth) isProven(x *exchange, s *sessionTruth) bool {
	second := t.secondOf(x, s)
	return second != nil && x.sent.Before(second.end)
}

// secondOf returns the second cookie of a request for a session, or nil.
func (t *truth) secondOf(x *exchange, s *sessionTruth) *secondTruth {
	for _, c := range x.seconds {
		if second := t.seconds[c.value]; second != nil && second.s == s {
			return second
		}
	}
	return nil
}

// lacksProof reports whether a request must have a second cookie for a session, and has none that
// is good.
func (t *truth) lacksProof(x *exchange, s *sessionTruth) bool {
	return !s.bound.IsZero() && !x.sent.Before(s.bound) && !t.isProven(x, s)
}

// judgeProof judges whether a request that has its session has proved itself.
func (t *truth) judgeProof(x *exchange, s *sessionTruth) {
	if x.sent.After(s.boundStored) && t.lacksProof(x, s) {
		t.violation(x, "only the key opens a bound session", "session %d is bound since %v, and the request has no second cookie that is good", s.number, s.bound.Sub(t.w.began))
	}
}

// isUnproven reports whether the request has no session because it lacks a second cookie.
func (x *exchange) isUnproven() bool { return x.err == session.ErrUnproven }

// judgeUnproven judges a request of a browser that has no session because it lacks a good second
// cookie.
func (t *truth) judgeUnproven(x *exchange, s *sessionTruth) {
	if x.browser == nil {
		t.count("thieves without a second cookie")
		return
	}
	second := t.secondOf(x, s)
	switch {
	case x.skipped != "":
		t.count("unproven, because the endpoint could not be reached or failed")
	case second != nil && !x.sent.Before(second.end), x.left.Before(s.bound.Add(-deviceGrace)):
		t.count("unproven, because the request took long to arrive")
	default:
		t.violation(x, "a binding logs no user out", "a browser with the key of session %d has no second cookie that is good", s.number)
	}
}

// judgeBinding judges a record that a request has stored. from is the time in it from which on a
// second cookie is demanded, in milliseconds; 0: never.
func (t *truth) judgeBinding(x *exchange, s *sessionTruth, r *session.Record, from int64) {
	var bound time.Time
	if from != 0 {
		bound = time.UnixMilli(from)
	}
	switch {
	case !s.bound.IsZero() && !bound.Equal(s.bound):
		t.violation(x, "only the key opens a bound session", "session %d was bound since %v, and is since %v", s.number, s.bound.Sub(t.w.began), bound.Sub(t.w.began))
	case x != nil && x.proves != nil && (r.LastSeen.After(s.lastSeen) || r.Expires.After(s.expires)):
		t.violation(x, "idle timeout and lifetime", "a proof has counted as a use of session %d", s.number)
	case x != nil && x.isUnproven() && x.login == "" && x.proves == nil && s.id == t.idOf(x.token):
		t.violation(x, "only the key opens a bound session", "a request without a second cookie has changed session %d", s.number)
	}
	if s.bound.IsZero() && !bound.IsZero() {
		s.bound, s.boundStored = bound, time.Now()
		t.count("bound sessions")
	}
}
