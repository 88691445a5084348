package session

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/device"
	"github.com/coatcheck/session/internal/object"
	"github.com/coatcheck/session/internal/storectx"
)

// ServeHTTP answers the proofs of browsers, at Options.DevicePath. It answers 200, 403 or 503 only,
// because browsers forget the session at any other status below 500, and follow redirects. It looks
// at no cookie, because a browser sends none when a link or login of another site causes the proof:
// the challenge of a registration and the identifier of a refresh name the session.
func (d *devices) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{d: d, w: w, r: r, now: milliseconds(time.Now())}
	var err error
	identifier, names := device.Field(r.Header, device.IdentifierHeader)
	switch {
	case r.Method != http.MethodPost:
		x.refuse("")
	case names:
		err = x.refresh(identifier)
	case len(r.Header[device.IdentifierHeader]) > 0:
		x.refuse("")
	default:
		err = x.register()
	}
	if err != nil {
		x.fail(err)
		d.m.emit(r.Context(), EventStoreFailed, x.rec, err)
	}
	if x.isFirst {
		d.m.emit(r.Context(), EventDeviceBound, x.rec, nil)
	}
}

// An exchange is one request to the endpoint.
type exchange struct {
	d           *devices
	w           http.ResponseWriter
	r           *http.Request
	now         time.Time
	rec         *Record // the session, as far as it is known
	isFirst     bool    // the request contains the first proof of the session's browser
	mayBeStored bool    // the change was or may have been stored, although the Save failed
}

// register answers the proof of a browser that registers its key. The challenge in the proof comes
// from the response to a Login, so no holder of cookies alone has one. The first key counts, unless
// no browser has refreshed with it and a later Login has offered another registration. The same
// proof is answered again, because browsers repeat a request whose connection was lost, and a
// browser that gets a 403 then does not know that the session is bound.
func (x *exchange) register() error {
	proof, _ := device.Field(x.r.Header, device.ResponseHeader)
	id, made, ok := x.d.stamps.ParseRegistrationChallenge(device.Claimed(proof))
	if !ok || !x.isRecent(made, maxRegistration, x.now) {
		x.refuse("")
		return nil
	}
	key, _, err := device.Register(proof)
	if err != nil {
		x.refuse("")
		return nil
	}
	isRefused := false
	bound, err := x.change(id, func(b *body.Device) bool {
		isSame := b.Key == string(key)
		isNew := b.Key == "" || b.From.IsZero() && made.After(b.Made)
		isRefused = !isNew && (!isSame || !b.From.IsZero() && !x.now.Before(b.From))
		if isSame || isRefused {
			return false
		}
		*b = body.Device{Key: string(key), Made: made}
		return true
	})
	switch {
	case err != nil:
		return err
	case bound == nil:
		x.end(x.d.stamps.Identifier(id, made))
	case isRefused:
		x.refuse("")
	default:
		x.accept(x.d.stamps.Identifier(id, bound.Made), id, bound, firstProof+deviceGrace)
	}
	return nil
}

// refresh answers a browser that asks for a challenge, or for another second cookie with a proof.
// The proof must contain a challenge of this session that was not used. It is answered again for
// deviceGrace, because answers are lost and several tabs refresh at the same time.
func (x *exchange) refresh(identifier string) error {
	id, registration, ok := x.d.stamps.ParseIdentifier(identifier)
	if !ok {
		x.end(identifier)
		return nil
	}
	proof, hasProof := device.Field(x.r.Header, device.ResponseHeader)
	isProven, isFirst := false, false
	bound, err := x.change(id, func(b *body.Device) bool {
		isProven, isFirst = false, false
		if !hasProof || !b.Made.Equal(registration) {
			return false
		}
		challenge, err := device.Key(b.Key).Challenge(proof)
		made, ok := x.d.stamps.Verify(device.KindRefresh, challenge, id)
		if err != nil || !ok || !x.isRecent(made, x.d.period+extraChallenge, later(x.now, b.Used)) {
			return false
		}
		// Challenges that were used before are used up. At is in the future if the clock was set back.
		isOver := !x.now.Before(b.At.Add(deviceGrace)) || b.At.After(x.now.Add(maxAhead))
		if !made.After(b.Used) {
			isProven = !isOver && made.After(b.Old)
			return false
		}
		if isProven, isFirst = true, b.From.IsZero(); isFirst {
			b.From = x.now.Add(deviceGrace)
		}
		if isOver {
			b.Old, b.At = b.Used, x.now
		}
		b.Used = made
		return true
	})
	x.isFirst = isFirst && (bound != nil || x.mayBeStored)
	switch {
	case err != nil:
		return err
	case bound == nil || !bound.Made.Equal(registration): // ended, or bound to the key of a later registration
		x.end(identifier)
	case !isProven:
		x.refuse(x.challenge(identifier, id, bound))
	default:
		x.accept(identifier, id, bound, x.d.period)
	}
	return nil
}

// isRecent reports whether a challenge is not older than life. now is the time by which it may have
// been made: clocks may be set back.
func (x *exchange) isRecent(made time.Time, life time.Duration, now time.Time) bool {
	return !made.Before(x.now.Add(-life)) && !made.After(now.Add(maxAhead))
}

// change calls f with the key of the session, and stores it if f returns true. If another commit
// was faster, f is called again with the newer one. It is no use of the session: the clocks stay.
// It returns nil if the session has ended.
func (x *exchange) change(id string, f func(b *body.Device) bool) (*body.Device, error) {
	m := x.d.m
	c := storectx.New(x.r.Context(), m.timeout)
	defer c.Release()
	x.rec = &Record{ID: id}
	n := contender{queues: &m.queues, c: c, id: id}
	defer n.leave()
	rec, err := n.join()
	if err == nil && rec == nil {
		rec, err = loadRecord(c, m.store, id)
	}
	for err == nil && isLive(rec) {
		x.rec = rec
		var room [16]object.Member
		b, err := parse(room[:0], rec.Data, x.now)
		if err != nil {
			return nil, err
		}
		bound := b.Device()
		if !f(&bound) {
			return &bound, nil
		}
		b.Bind(bound)
		next := *rec
		next.Data, next.Version = b.Bytes(), newVersion()
		if err = n.save(&next, rec.Version); err == nil {
			return &bound, nil
		}
		if errors.Is(err, ErrIndeterminate) { // a repeated proof does not find out that it was the first
			x.mayBeStored = n.load() != nil || n.last.rec != nil && body.BoundFrom(n.last.rec.Data).Equal(bound.From)
			return nil, storeError("save", err)
		}
		if rec, err = n.reread(err); err != nil {
			return nil, err
		}
	}
	return nil, err
}

// challenge returns the header with the challenge of the next proof. It is newer than every one
// that was used, even if the clock of another process is ahead.
func (x *exchange) challenge(identifier, id string, b *body.Device) string {
	at := later(x.now, b.Used.Add(time.Millisecond))
	return device.Challenge(x.d.stamps.New(device.KindRefresh, at, id), identifier)
}

// accept answers 200 with another second cookie. The browser drops the cookie deviceGrace before its
// end, so that requests that were sent with it still arrive in time.
func (x *exchange) accept(identifier, id string, b *body.Device, life time.Duration) {
	like := x.d.cookies.adapted(x.r)
	like.Domain, like.Partitioned, like.Secure = "", false, true // it is bound, so it was sent that way
	like.Name, like.Value = x.d.cookieName(id), ""
	_, attributes, _ := strings.Cut(like.String(), "; ")
	h := x.w.Header()
	until := x.now.Add(life)
	setSecond(h, like, like.Name, x.d.stamps.New(device.KindCookie, until, id), int((life-deviceGrace)/time.Second))
	h[device.ChallengeHeader] = []string{x.challenge(identifier, id, b)}
	x.answer(http.StatusOK, device.Instructions{Identifier: identifier, Path: x.d.path, Cookie: like.Name, Attributes: attributes}.JSON())
}

// end answers that there is no such session, so that the browser forgets it. Its second cookie runs
// out by itself.
func (x *exchange) end(identifier string) { x.answer(http.StatusOK, device.Ended(identifier)) }

// refuse answers 403, with a challenge unless it is "".
func (x *exchange) refuse(challenge string) {
	if challenge != "" {
		x.w.Header()[device.ChallengeHeader] = []string{challenge}
	}
	x.answer(http.StatusForbidden, nil)
}

// fail answers 503, after which a browser keeps the session and tries again.
func (x *exchange) fail(err error) {
	logFailure(x.d.m.log, x.r, err, http.StatusServiceUnavailable)
	x.w.Header()["Retry-After"] = []string{retryAfter}
	x.answer(http.StatusServiceUnavailable, nil)
}

func (x *exchange) answer(status int, text []byte) {
	h := x.w.Header()
	h["Cache-Control"] = []string{"no-store"}
	if text != nil {
		h["Content-Type"] = []string{"application/json"}
	}
	x.w.WriteHeader(status)
	x.w.Write(text)
}
