package session

import (
	"bytes"
	"slices"
)

// A record's Data is one JSON object. Names and values are found by walking it
// in place, so that reading one value costs nothing for the others, and values
// nobody touched are carried byte for byte. merge writes the members beginning
// with "session." first and then the small ones before the big ones: reading a
// small value never walks over a large one.
//
// Names are compared as they stand in the JSON, quotes included.

const (
	reserved   = `"session.` // how our own members begin; NewKey refuses the name
	remembered = `"session.remember"`
	flashes    = `"session.flashes"`
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
	return find(data, name)
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

type member struct{ name, raw []byte }

// merge applies changes to data and returns the new object and the bytes that
// count against MaxDataSize: everything but our own metadata. An Update whose
// value is not the one it saw before runs again.
func merge(data []byte, changes []change) (merged []byte, size int, err error) {
	var room [16]member
	members := room[:0]
	w := walker{data: data}
	for w.next() {
		members = append(members, member{w.name, w.raw})
	}
	if w.err != nil {
		return nil, 0, w.err
	}
	for i := range changes {
		c := &changes[i]
		if c.name == "" {
			members = slices.DeleteFunc(members, func(m member) bool { return string(m.name) != remembered })
			continue
		}
		at := slices.IndexFunc(members, func(m member) bool { return string(m.name) == c.name })
		raw := c.raw
		if c.again != nil {
			var in []byte
			if at >= 0 {
				in = members[at].raw
			}
			if !bytes.Equal(in, c.in) {
				if raw, err = c.again(in); err != nil {
					return nil, 0, err
				}
			}
		}
		switch {
		case raw == nil && at >= 0:
			members = slices.Delete(members, at, at+1)
		case raw == nil:
		case at >= 0:
			members[at].raw = raw
		default:
			members = append(members, member{[]byte(c.name), raw})
		}
	}
	return encode(members)
}

func encode(members []member) (data []byte, size int, err error) {
	slices.SortStableFunc(members, func(a, b member) int { return weight(a) - weight(b) })
	total := 2
	for _, m := range members {
		n := len(m.name) + len(m.raw) + len(`:,`)
		total += n
		if string(m.name) != remembered {
			size += n
		}
	}
	data = append(make([]byte, 0, total), '{')
	for i, m := range members {
		if i > 0 {
			data = append(data, ',')
		}
		data = append(data, m.name...)
		data = append(data, ':')
		data = append(data, m.raw...)
	}
	return append(data, '}'), size, nil
}

func weight(m member) int {
	if bytes.HasPrefix(m.name, []byte(reserved)) {
		return 0
	}
	return len(m.raw)
}
