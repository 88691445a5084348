package body

import (
	"bytes"
	"slices"

	"github.com/coatcheck/session/internal/object"
)

// Change is one change of a member by a request.
type Change struct {
	Call  string                          // the method that made it, for errors
	Name  string                          // the member's name in JSON; "" removes all members but metadata
	Raw   []byte                          // the value after the change; nil removes the member
	In    []byte                          // the value from which Raw was computed, if Again is set
	Again func(in []byte) ([]byte, error) // computes Raw from another value than In; nil: Raw replaces any value
}

// Changes are the changes of one request, in order. After a conflict they are applied to the
// newer record.
type Changes []Change

// Add appends a change, and removes changes that no longer have an effect. It does not modify
// the elements of cs.
func (cs Changes) Add(c Change) Changes {
	if c.Name == "" {
		return Changes{c}
	}
	if c.Again == nil {
		for i := len(cs) - 1; i >= 0 && cs[i].Name != ""; i-- {
			if cs[i].Name == c.Name {
				cs = slices.Concat(cs[:i:i], cs[i+1:])
			}
		}
	}
	return append(cs, c)
}

// Value returns the raw value of a member of data after the changes, or nil.
func (cs Changes) Value(data []byte, name string) []byte {
	for i := len(cs) - 1; i >= 0; i-- {
		switch cs[i].Name {
		case name:
			return cs[i].Raw
		case "":
			return nil
		}
	}
	return Value(data, name)
}

// Names returns the names, in JSON, of the members of data after the changes, in no order.
func (cs Changes) Names(data []byte) []string {
	exists := map[string]bool{}
	for s := object.Scan(data); s.Next(); {
		exists[string(s.Name)] = true
	}
	for _, c := range cs {
		if c.Name == "" {
			clear(exists)
			continue
		}
		exists[c.Name] = c.Raw != nil
	}
	var names []string
	for name, ok := range exists {
		if ok {
			names = append(names, name)
		}
	}
	return names
}

// AddValues reports whether an empty body has a member after the changes.
func (cs Changes) AddValues() bool {
	return slices.ContainsFunc(cs, func(c Change) bool { return cs.Value(nil, c.Name) != nil })
}

// Of reports whether one of the changes changes this member.
func (cs Changes) Of(name string) bool {
	return slices.ContainsFunc(cs, func(c Change) bool { return c.Name == name })
}

// ApplyTo returns data after the changes. data must not contain keys.
func (cs Changes) ApplyTo(data []byte) ([]byte, error) {
	members, err := object.Append(nil, data)
	if err == nil {
		members, err = cs.apply(members)
	}
	b := Body{members: members}
	return b.Bytes(), err
}

func (cs Changes) apply(members []object.Member) ([]object.Member, error) {
	for i := range cs {
		c := &cs[i]
		if c.Name == "" {
			members = slices.DeleteFunc(members, func(m object.Member) bool { return !isMetadata(m.Name) })
			continue
		}
		raw := c.Raw
		if c.Again != nil {
			if in := object.Get(members, c.Name); !bytes.Equal(in, c.In) {
				var err error
				if raw, err = c.Again(in); err != nil {
					return nil, err
				}
			}
		}
		members = object.Set(members, c.Name, raw)
	}
	return members, nil
}
