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

// A ticket is derived from an old cookie: the id of the record of the takeover, and the key that
// opens the sealed data in that record. Neither can be computed from the other, and the cookie
// cannot be computed from them.
type ticket struct {
	id   string
	seal cipher.AEAD
}

func newTicket(name, value string) ticket {
	derive := func(purpose string, length int) []byte {
		key, err := hkdf.Key(sha256.New, []byte(value), nil, "github.com/coatcheck/session/migrate "+purpose+" "+name, length)
		if err != nil {
			panic("migrate: " + err.Error()) // the length is within the limit of HKDF
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

// A begun is the new session as it was when the takeover began it.
type begun struct {
	ID     string
	Key    string // hash of its key; "" for tokens without a key
	Cookie string // Set-Cookie line
}

// taken is the Data of the record of a ticket.
type taken struct {
	Begun []byte `json:"migrate.begun,omitempty"` // sealed; absent while a request is taking the session over
}

// taken returns the session that was taken over, or zero while another request is taking it over,
// or session.ErrNotFound.
func (t *Takeover) taken(ctx context.Context, k ticket) (made begun, err error) {
	rec, err := t.o.Store.Load(ctx, k.id)
	if err != nil {
		return made, err
	}
	var sealed taken
	if err = json.Unmarshal(rec.Data, &sealed); err == nil && sealed.Begun != nil {
		var b []byte
		if b, err = k.seal.Open(nil, nil, sealed.Begun, nil); err == nil {
			err = json.Unmarshal(b, &made)
		}
	}
	if err != nil {
		return made, mistake{fmt.Errorf("the record of a takeover, %s: %w", k.id, err)}
	}
	return made, nil
}

// claim creates the record that reserves the takeover for this request, or returns
// session.ErrExists.
//
// The record has its own id as its user, because a full MemoryStore first evicts records without a
// user. LastSeen is 1970, so that this user never appears online.
func (t *Takeover) claim(ctx context.Context, k ticket) (*session.Record, error) {
	now := time.Now().Truncate(time.Millisecond)
	end := now.Add(claimLife)
	r := &session.Record{ID: k.id, User: k.id, Data: []byte("{}"), Created: now, LastSeen: time.Unix(0, 0), Deadline: end, Expires: end, Version: newVersion()}
	return r, t.o.Store.Create(ctx, r)
}

// release gives up a claim, unless the record has changed: the claim may have expired, and another
// request may have taken the session over.
func (t *Takeover) release(ctx context.Context, claim *session.Record) {
	r := *claim
	r.Deadline = time.Now().Add(time.Millisecond).Truncate(time.Millisecond)
	r.Expires = r.Deadline
	r.Version = newVersion()
	_ = t.o.Store.Save(ctx, &r, claim.Version)
}

// seal stores the cookie of the new session in the record of the claim, sealed with the old cookie,
// until the old session would have ended.
func (t *Takeover) seal(ctx context.Context, k ticket, claim *session.Record, made begun, until time.Time) error {
	b, err := json.Marshal(made)
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
