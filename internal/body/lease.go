package body

import (
	"time"

	"github.com/coatcheck/session/internal/object"
)

// Lease is the right of one request to refresh a value. No request holds the zero Lease.
//
//	"session.leases":{"tokens":{"by":"…","until":1732639200000}}
type Lease struct {
	By    string // random name of the holder
	Until int64  // end of the lease in Unix milliseconds
}

// IsHeld reports whether a request holds the lease at now.
func (l Lease) IsHeld(now time.Time) bool { return now.UnixMilli() < l.Until }

// LeaseOf returns the lease of a value of data.
func LeaseOf(data []byte, name string) Lease {
	return parseLease(object.Find(Value(data, Leases), name))
}

// EditLease replaces the lease of a value by the result of f, and returns the new raw value of
// [Leases]: leases itself if f changes nothing, nil if no lease is left. If leases is not a
// JSON object, no lease is held.
func EditLease(leases []byte, name string, f func(Lease) (Lease, error)) ([]byte, error) {
	members, err := object.Append(nil, leases)
	if err != nil {
		members = nil
	}
	was := parseLease(object.Get(members, name))
	now, err := f(was)
	if err != nil || now == was {
		return leases, err
	}
	if members = object.Set(members, name, now.raw()); len(members) == 0 {
		return nil, nil
	}
	return object.Write(members), nil
}

func parseLease(raw []byte) (l Lease) {
	l.By = object.Unquote(object.Find(raw, `"by"`))
	l.Until, _ = object.Int(object.Find(raw, `"until"`))
	return l
}

// raw encodes the lease. It returns nil for the zero Lease.
func (l Lease) raw() []byte {
	if l == (Lease{}) {
		return nil
	}
	return object.Write([]object.Member{
		{Name: []byte(`"by"`), Raw: object.Quote(l.By)},
		{Name: []byte(`"until"`), Raw: object.Number(l.Until)},
	})
}
