package body

import (
	"time"

	"github.com/coatcheck/session/internal/object"
)

// Device is the key of the browser to which a session is bound, and what is known of the
// browser's proofs. A challenge is identified by the time at which it was made.
//
//	"session.device":{"from":1732639210000,"key":"ES256.…","made":1732639200000,"used":…,"at":…,"old":…}
type Device struct {
	// From is the time from which on a request needs a proof. It is zero until the browser has
	// refreshed once: before that, it is not known that the browser has got an answer.
	From time.Time

	Key  string    // the public key: see device.Key; "": the session is not bound
	Made time.Time // when the challenge was made by which the key was registered
	Used time.Time // the newest challenge that a proof has contained
	At   time.Time // the first use of a challenge that is newer than Old
	Old  time.Time // challenges up to this one are not accepted again
}

// BoundFrom returns Device.From of data.
func BoundFrom(data []byte) time.Time {
	raw := reservedMember(data, deviceMember)
	if raw == nil {
		return time.Time{}
	}
	return instant(object.Find(raw, `"from"`))
}

// Device returns the key of the browser, or the zero Device.
func (b *Body) Device() (d Device) {
	raw := b.Get(deviceMember)
	if raw == nil {
		return d
	}
	at := func(name string) time.Time { return instant(object.Find(raw, name)) }
	return Device{
		From: at(`"from"`), Key: text(object.Find(raw, `"key"`)), Made: at(`"made"`),
		Used: at(`"used"`), At: at(`"at"`), Old: at(`"old"`),
	}
}

// Bind stores the key of the browser.
func (b *Body) Bind(d Device) {
	var members []object.Member
	add := func(name string, raw []byte) {
		members = append(members, object.Member{Name: []byte(name), Raw: raw})
	}
	addTime := func(name string, t time.Time) {
		if !t.IsZero() {
			add(name, object.Number(t.UnixMilli()))
		}
	}
	addTime(`"from"`, d.From)
	add(`"key"`, object.Quote(d.Key))
	addTime(`"made"`, d.Made)
	addTime(`"used"`, d.Used)
	addTime(`"at"`, d.At)
	addTime(`"old"`, d.Old)
	b.Set(deviceMember, object.Write(members))
}
