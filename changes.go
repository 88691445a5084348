package session

import (
	"bytes"
	"slices"

	"github.com/coatcheck/session/internal/object"
)

// A record's Data is one JSON object, which package object reads and writes in
// place. Its members are written with our own first and then the small ones
// before the big ones: reading a small value never steps over a large one.
//
// Names are compared as they stand in the JSON, quotes included.

const (
	reserved   = `"session.` // how our own members begin; NewKey refuses the name
	remembered = `"session.remember"`
	flashes    = `"session.flashes"`
	leases     = `"session.leases"` // of Key.Refresh
)

// A change is one thing a request did to the values. Changes are kept in order
// and applied again to the newer record if somebody else saved first.
type change struct {
	call  string // the method's name, for errors
	name  string // of the member; "" for Clear, which forgets all but our own metadata
	raw   []byte // the value after this change; nil: none
	in    []byte // Update: the value that raw was made from
	again func(in []byte) ([]byte, error)
}

// lookup returns a member's value after the changes, or nil.
func lookup(data []byte, changes []change, name string) []byte {
	for i := len(changes) - 1; i >= 0; i-- {
		switch changes[i].name {
		case name:
			return changes[i].raw
		case "":
			return nil
		}
	}
	return object.FindAfter(data, values(data), name)
}

// add appends a change, in place of those that it makes pointless.
func add(changes []change, c change) []change {
	if c.name == "" {
		return append(changes[:0], c)
	}
	if c.again == nil {
		for i := len(changes) - 1; i >= 0 && changes[i].name != ""; i-- {
			if changes[i].name == c.name {
				changes = slices.Delete(changes, i, i+1)
			}
		}
	}
	return append(changes, c)
}

// apply makes the changes to the members. An Update whose value is not the one
// it saw before runs again.
func apply(changes []change, members []object.Member) ([]object.Member, error) {
	for i := range changes {
		c := &changes[i]
		if c.name == "" {
			members = slices.DeleteFunc(members, func(m object.Member) bool { return !isMetadata(m.Name) })
			continue
		}
		raw := c.raw
		if c.again != nil {
			if in := object.Get(members, c.name); !bytes.Equal(in, c.in) {
				var err error
				if raw, err = c.again(in); err != nil {
					return nil, err
				}
			}
		}
		members = object.Set(members, c.name, raw)
	}
	return members, nil
}

// encode returns the object of the members.
func encode(members []object.Member) []byte {
	slices.SortStableFunc(members, func(a, b object.Member) int { return weight(a) - weight(b) })
	return object.Write(members)
}

// sizeOfValues returns how many bytes of the members count against Options.MaxDataSize:
// values and flashes.
func sizeOfValues(members []object.Member) (size int) {
	for _, m := range members {
		if !isMetadata(m.Name) {
			size += m.Size()
		}
	}
	return size
}

// weight orders the members of Data: the keys, what else is our own, and the
// rest by their length, with the values that a key of the past sees.
func weight(m object.Member) int {
	switch {
	case !bytes.HasPrefix(m.Name, []byte(reserved)), string(m.Name) == pastMember:
		return len(m.Raw)
	case isKeyMember(m.Name):
		return -1
	}
	return 0
}

// isMetadata tells whether a member is neither a value nor the flashes.
func isMetadata(name []byte) bool {
	return bytes.HasPrefix(name, []byte(reserved)) && (string(name) == remembered || string(name) == leases || isKeyMember(name))
}
