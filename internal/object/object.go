// Package object finds, replaces and writes the members of a JSON object in place. Reading one
// value does not decode the others, and values that are not changed are copied byte for byte.
//
// Values are only parsed to find their ends, so a value can be invalid JSON: the code that
// decodes it finds out. Names are compared in their JSON encoding, quotes included.
package object

import (
	"bytes"
	"errors"
	"slices"
)

// ErrSyntax is returned for bytes that are not a JSON object.
var ErrSyntax = errors.New("not a JSON object")

// Find returns the raw value of the first member with this name, or nil.
func Find(data []byte, name string) []byte { return FindAfter(data, 0, name) }

// FindAfter is [Find] from pos, the position after the value of a member.
func FindAfter(data []byte, pos int, name string) []byte {
	for s := ScanAfter(data, pos); s.Next(); {
		if string(s.Name) == name {
			return s.Raw
		}
	}
	return nil
}

// Member is one member of an object, in its JSON encoding.
type Member struct{ Name, Raw []byte }

// Append appends all members of the object data, in order. Empty data has no members.
func Append(members []Member, data []byte) ([]Member, error) {
	s := Scanner{data: data}
	for s.Next() {
		members = append(members, Member{s.Name, s.Raw})
	}
	return members, s.Err
}

// Get returns the raw value of the first member with this name, or nil.
func Get(members []Member, name string) []byte {
	if i := index(members, name); i >= 0 {
		return members[i].Raw
	}
	return nil
}

// Set replaces the raw value of the first member with this name, or appends a member if there
// is none. If raw is nil the member is removed.
func Set(members []Member, name string, raw []byte) []Member {
	i := index(members, name)
	switch {
	case i < 0 && raw == nil:
		return members
	case i < 0:
		return append(members, Member{[]byte(name), raw})
	case raw == nil:
		return slices.Delete(members, i, i+1)
	}
	members[i].Raw = raw
	return members
}

func index(members []Member, name string) int {
	return slices.IndexFunc(members, func(m Member) bool { return string(m.Name) == name })
}

// Write returns the object with these members, in this order.
func Write(members []Member) []byte {
	total := len("{}") - min(len(members), 1) // one comma less than members
	for _, m := range members {
		total += m.Size()
	}
	data := append(make([]byte, 0, total), '{')
	for i, m := range members {
		if i > 0 {
			data = append(data, ',')
		}
		data = append(data, m.Name...)
		data = append(data, ':')
		data = append(data, m.Raw...)
	}
	return append(data, '}')
}

// Size returns the number of bytes of the member in an object.
func (m Member) Size() int { return len(m.Name) + len(m.Raw) + len(`:,`) }

// Scanner iterates over the members of an object.
type Scanner struct {
	data      []byte
	pos       int // position after the value of the last member
	Name, Raw []byte
	Err       error // ErrSyntax if Next has returned false because of an error
}

// Scan returns a Scanner before the first member.
func Scan(data []byte) Scanner { return Scanner{data: data} }

// ScanAfter returns a Scanner at pos, the position after the value of a member.
func ScanAfter(data []byte, pos int) Scanner { return Scanner{data: data, pos: min(pos, len(data))} }

// Next advances to the next member. It returns false after the last member, and at a syntax
// error, with Err set.
func (s *Scanner) Next() bool {
	d, i := s.data, blank(s.data, s.pos)
	first := s.pos == 0
	if first {
		if at(d, i) != '{' {
			return s.stop()
		}
		i = blank(d, i+1)
	}
	if at(d, i) == '}' {
		if blank(d, i+1) < len(d) {
			return s.stop()
		}
		return false
	}
	if !first {
		if at(d, i) != ',' {
			return s.stop()
		}
		i = blank(d, i+1)
	}
	end := text(d, i)
	if end < 0 {
		return s.stop()
	}
	s.Name = d[i:end:end]
	if i = blank(d, end); at(d, i) != ':' {
		return s.stop()
	}
	i = blank(d, i+1)
	if end = value(d, i); end < 0 {
		return s.stop()
	}
	s.Raw, s.pos = d[i:end:end], end
	return true
}

// stop ends the scan with a syntax error. Empty data is an empty object, not an error.
func (s *Scanner) stop() bool {
	if len(s.data) > 0 {
		s.Err = ErrSyntax
	}
	return false
}

// at returns the byte at i, or 0 after the end.
func at(d []byte, i int) byte {
	if i < len(d) {
		return d[i]
	}
	return 0
}

// blank, text and value skip white space, a string and a value at i, and return the position
// after it. text and value return -1 if there is none.

func blank(d []byte, i int) int {
	for i < len(d) && (d[i] == ' ' || d[i] == '\t' || d[i] == '\n' || d[i] == '\r') {
		i++
	}
	return i
}

func text(d []byte, i int) int {
	if at(d, i) != '"' {
		return -1
	}
	for i++; ; {
		n := bytes.IndexByte(d[i:], '"')
		if n < 0 {
			return -1
		}
		i += n + 1
		slashes := 0
		for d[i-2-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return i
		}
	}
}

func value(d []byte, i int) int {
	if end := flat(d, i); end > 0 {
		return end
	}
	start, depth := i, 0
	for i < len(d) {
		switch d[i] {
		case '"':
			if i = text(d, i); i < 0 || depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return word(start, i)
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return word(start, i)
			}
		}
		i++
	}
	return -1
}

// flat skips an object at i in which there is neither an object, an array nor an escape. It returns 0 for
// another value. It is much faster than a loop over the bytes.
func flat(d []byte, i int) int {
	if at(d, i) != '{' {
		return 0
	}
	n := bytes.IndexByte(d[i:], '}')
	if n < 0 {
		return 0
	}
	inside := d[i+1 : i+n]
	if bytes.Count(inside, quote)%2 > 0 || bytes.IndexByte(inside, '\\') >= 0 || bytes.IndexByte(inside, '{') >= 0 || bytes.IndexByte(inside, '[') >= 0 {
		return 0
	}
	return i + n + 1
}

var quote = []byte{'"'}

// word returns i, the end of a number, true, false or null, or -1 if the word is empty.
func word(start, i int) int {
	if i == start {
		return -1
	}
	return i
}
