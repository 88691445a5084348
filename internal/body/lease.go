package body

import (
	"time"

	"github.com/coatcheck/session/internal/object"
)

// A Lease is a request's right to refresh one value. The zero Lease is held by no
// request.
//
//	"session.leases":{"tokens":{"by":"…","until":1732639200000}}
type Lease struct {
	By    string // names the holder
	Until int64  // Unix milliseconds
}

// IsHeld reports whether a request holds the lease at this time.
func (l Lease) IsHeld(now time.Time) bool { return now.UnixMilli() < l.Until }

// LeaseOf returns the lease of a value of data.
func LeaseOf(data []byte, name string) Lease {
	return parseLease(object.Find(Value(data, Leases), name))
}

// EditLease replaces the lease of a value by f of it, and returns the raw value of
// [Leases] after that: leases itself if f changes nothing, nil if no lease is left.
// Leases that are no JSON object are held by no request.
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

// raw returns nil for the zero Lease.
func (l Lease) raw() []byte {
	if l == (Lease{}) {
		return nil
	}
	return object.Write([]object.Member{
		{Name: []byte(`"by"`), Raw: object.Quote(l.By)},
		{Name: []byte(`"until"`), Raw: object.Number(l.Until)},
	})
}
