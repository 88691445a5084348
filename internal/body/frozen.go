package body

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/coatcheck/session/internal/object"
)

// Frozen is a session as it was just before an explicit renewal.
//
// An explicit renewal (Renew, Remember, a Login of the same user) replaces the current key
// because the session gains rights: an attacker with an older key must not see the contents of
// the session from now on. But requests with an older key are in flight. For Options.RenewGrace
// such a request therefore sees the session as it was before the renewal, and its changes are
// applied to the current session. After the grace an older key has been replaced.
//
//	"session.past":{"hash hash":{"until":1732639200000,"created":1732630000000,"values":{…}}}
type Frozen struct {
	Values  []byte    // a JSON object of the values and flashes
	Created time.Time // Record.Created
	Until   time.Time // end of the grace
}

// FrozenFor returns the session that a request with this key sees, if an explicit renewal has
// replaced the key and its grace has not ended.
func FrozenFor(data []byte, key string, now time.Time) (f Frozen, ok bool) {
	for s := object.Scan(Value(data, pastMember)); s.Next(); {
		if strings.Contains(string(s.Name), key) {
			f, ok = parseFrozen(s.Raw)
			return f, ok && now.Before(f.Until)
		}
	}
	return Frozen{}, false
}

// parseFrozen decodes the value that member encodes. It returns false for anything else.
func parseFrozen(raw []byte) (Frozen, bool) {
	until, ok1 := object.Int(object.Find(raw, `"until"`))
	created, ok2 := object.Int(object.Find(raw, `"created"`))
	values := object.Find(raw, `"values"`)
	return Frozen{values, time.UnixMilli(created), time.UnixMilli(until)}, ok1 && ok2
}

// member returns the member of session.past for requests with one of these keys.
func (f Frozen) member(keys []string) object.Member {
	return object.Member{Name: object.Quote(strings.Join(keys, " ")), Raw: object.Write([]object.Member{
		{Name: []byte(`"until"`), Raw: object.Number(f.Until.UnixMilli())},
		{Name: []byte(`"created"`), Raw: object.Number(f.Created.UnixMilli())},
		{Name: []byte(`"values"`), Raw: f.Values},
	})}
}

// Unchanged returns the members of frozen whose values are the same in data.
func Unchanged(frozen, data []byte) ([]byte, error) {
	b, err := Parse(nil, frozen, time.Time{})
	b.members = slices.DeleteFunc(b.members, func(m object.Member) bool {
		return !bytes.Equal(Value(data, string(m.Name)), m.Raw)
	})
	return b.Bytes(), err
}
