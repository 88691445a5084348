package migrate

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/coatcheck/session"
)

// A ticket is an old cookie: the id of the record that says what became of its
// session, and the key that opens what is sealed in there. Neither leads to the other,
// nor to the cookie.
type ticket struct {
	id   string
	seal cipher.AEAD
}

func newTicket(name, value string) ticket {
	derive := func(purpose string, length int) []byte {
		key, err := hkdf.Key(sha256.New, []byte(value), nil, "github.com/coatcheck/session/migrate "+purpose+" "+name, length)
		if err != nil {
			panic("migrate: " + err.Error()) // the length is what it can be
		}
		return key
	}
	block, err := aes.NewCipher(derive("seal", 32))
	if err != nil {
		panic("migrate: " + err.Error()) // the key has the right length
	}
	seal, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("migrate: " + err.Error())
	}
	return ticket{"taken-" + base64.RawURLEncoding.EncodeToString(derive("id", 16)), seal}
}

// A begun is the session that an old one has become, as it began.
type begun struct {
	ID     string
	Key    string // the hash of its key; "" of tokens that have none
	Cookie string // Set-Cookie
}

// what is in the record of a ticket.
type taken struct {
	Begun []byte `json:"migrate.begun,omitempty"` // sealed; none: a request is taking the session over
}

// taken returns the session that was taken over, zero while a request does that, or
// session.ErrNotFound.
func (t *Takeover) taken(ctx context.Context, k ticket) (is begun, err error) {
	rec, err := t.o.Store.Load(ctx, k.id)
	if err != nil {
		return is, err
	}
	var sealed taken
	if err = json.Unmarshal(rec.Data, &sealed); err == nil && sealed.Begun != nil {
		var b []byte
		if b, err = k.seal.Open(nil, nil, sealed.Begun, nil); err == nil {
			err = json.Unmarshal(b, &is)
		}
	}
	if err != nil {
		return is, mistake{fmt.Errorf("the record of a takeover, %s: %w", k.id, err)}
	}
	return is, nil
}

// claim makes this request the one that takes the session over, or returns
// session.ErrExists.
//
// The record has a user, its own id: a full MemoryStore evicts records without one.
// It was last seen in 1970, so that this user is never online.
func (t *Takeover) claim(ctx context.Context, k ticket) (*session.Record, error) {
	now := time.Now().Truncate(time.Millisecond)
	end := now.Add(claimLife)
	r := &session.Record{ID: k.id, User: k.id, Data: []byte("{}"), Created: now, LastSeen: time.Unix(0, 0), Deadline: end, Expires: end, Version: newVersion()}
	return r, t.o.Store.Create(ctx, r)
}

// release gives a claim up, if it is still this one: its time may have been up, and
// another request may have taken the session over.
func (t *Takeover) release(ctx context.Context, claim *session.Record) {
	r := *claim
	r.Deadline = time.Now().Add(time.Millisecond).Truncate(time.Millisecond)
	r.Expires = r.Deadline
	r.Version = newVersion()
	_ = t.o.Store.Save(ctx, &r, claim.Version)
}

// seal puts the new session's cookie where those find it who hold the old one, for as
// long as that could have been used.
func (t *Takeover) seal(ctx context.Context, k ticket, claim *session.Record, is begun, until time.Time) error {
	b, err := json.Marshal(is)
	if err != nil {
		return err
	}
	data, err := json.Marshal(taken{k.seal.Seal(nil, nil, b, nil)})
	if err != nil {
		return err
	}
	r := *claim
	r.Data = data
	if until = until.Truncate(time.Millisecond); until.After(r.Deadline) {
		r.Deadline, r.Expires = until, until
	}
	r.Version = newVersion()
	return t.o.Store.Save(ctx, &r, claim.Version)
}

func newVersion() uint64 { return rand.Uint64()>>1 | 1 }
