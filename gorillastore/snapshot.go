package gorillastore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/coatcheck/session/internal/batch"
	"github.com/gorilla/sessions"
)

// A snapshot is what Get or New has read, or Save has written, of one gorilla session. It does not
// refer to the sessions.Session.
type snapshot struct {
	err    error // why the session could not be loaded
	to     batch.Session
	prefix string
	id     string // the ID that the application has seen
	exists bool   // whether an entry is stored
	seen   map[any]seen
}

// seen is an entry of Values as it was read or written.
type seen struct {
	name string // after the prefix
	entry
}

// read reads the entries into the snapshot and into values, both of which are empty.
func (s *snapshot) read(values map[any]any) error {
	s.seen = map[any]seen{}
	state, err := s.to.Read(func(name string, raw []byte) {
		name, ok := strings.CutPrefix(name, s.prefix)
		if !ok {
			return
		}
		s.exists = true
		is := seen{name: name}
		if is.unmarshal(raw) != nil {
			return
		}
		key, err := is.keyOf(name)
		if err != nil {
			return
		}
		var v any
		switch {
		case is.isList():
			is.Items, v = is.values()
		case is.Value == emptyList:
			is.Value, v = "", []any{}
		default:
			if v, err = decode(is.Value); err != nil {
				return
			}
		}
		s.seen[key], values[key] = is, v
	})
	s.id = state.ID
	return err
}

// A difference is what a Save has to write, and what the snapshot is afterwards.
type difference struct {
	changes []batch.Change
	seen    map[any]seen
}

// compare returns the difference between the snapshot and Values.
func (s *snapshot) compare(values map[any]any) (d difference, err error) {
	d.seen = make(map[any]seen, len(values))
	keys := make(map[string]any, len(values))
	for key, v := range values {
		was, isKnown := s.seen[key]
		is := seen{name: was.name, entry: entry{Key: was.Key}}
		if !isKnown {
			is.name = nameOf(key)
			if is.name != key {
				if is.Key, err = encode(key); err != nil {
					return d, fmt.Errorf("gorillastore: Save: the key %v of Values: %w", key, err)
				}
			}
		}
		if other, ok := keys[is.name]; ok {
			return d, fmt.Errorf("gorillastore: Save: the keys %v and %v of Values cannot be told apart by their type and %%#v", other, key)
		}
		keys[is.name] = key
		if err := s.compareOne(&d, was, is, isKnown, key, v); err != nil {
			return d, fmt.Errorf("gorillastore: Save: the value of %v in Values: %w", key, err)
		}
	}
	for key, was := range s.seen {
		if _, ok := values[key]; ok {
			continue
		}
		if _, ok := keys[was.name]; ok {
			continue // a key of the same name has replaced it
		}
		change := batch.Change{Name: s.prefix + was.name}
		if was.isList() {
			change.Merge = func(in []byte) ([]byte, error) { return merge(in, was.Key, was.Items, nil, true) }
		}
		d.changes = append(d.changes, change)
	}
	slices.SortFunc(d.changes, func(a, b batch.Change) int { return strings.Compare(a.Name, b.Name) })
	return d, nil
}

// compareOne adds the change of one entry to d.
func (s *snapshot) compareOne(d *difference, was, is seen, isKnown bool, key, v any) (err error) {
	list, isList := v.([]any)
	if isList {
		return s.compareList(d, was, is, isKnown, key, list)
	}
	if is.Value, err = encode(v); err != nil {
		return err
	}
	if isKnown && !was.isList() && isSame(was.Value, is.Value) {
		d.seen[key] = was
		return nil
	}
	d.seen[key] = is
	change := batch.Change{Name: s.prefix + is.name}
	if change.Raw, err = is.marshal(); err == nil {
		d.changes = append(d.changes, change)
	}
	return err
}

// compareList is compareOne for a list.
func (s *snapshot) compareList(d *difference, was, is seen, isKnown bool, key any, list []any) (err error) {
	texts := make([]string, len(list))
	for i, v := range list {
		if texts[i], err = encode(v); err != nil {
			return err
		}
	}
	var added []item
	is.Items, added = split(was.Items, texts)
	isChanged := !isKnown || !was.isList() || len(added) > 0 || len(is.Items) < len(was.Items)
	is.Items = append(is.Items, added...)
	d.seen[key] = is
	if !isChanged {
		return nil
	}
	change := batch.Change{Name: s.prefix + is.name}
	if change.Raw, err = merge(nil, is.Key, nil, is.Items, false); err != nil {
		return err
	}
	change.Merge = func(in []byte) ([]byte, error) { return merge(in, is.Key, was.Items, is.Items, false) }
	d.changes = append(d.changes, change)
	return nil
}

// save writes what was changed in gs since the snapshot.
func (s *store) save(ctx context.Context, gs *sessions.Session, snap *snapshot) error {
	before, err := snap.to.Read(nil)
	if err != nil {
		return err
	}
	c, d, err := s.commitOf(gs, snap, before)
	if err != nil || isNothing(&c) {
		return err
	}
	after, err := snap.to.Commit(ctx, c)
	if err != nil {
		return err
	}
	snap.seen, snap.id, gs.ID = d.seen, after.ID, after.ID
	if len(d.seen) > 0 {
		gs.IsNew = false
	}
	if c.Login == "" || before.User == "" || before.User == c.Login {
		return nil
	}
	gs.Values = map[any]any{} // the session is another user's
	return snap.read(gs.Values)
}

// commitOf returns what a Save of gs has to commit. Everything is encoded before anything is
// changed.
func (s *store) commitOf(gs *sessions.Session, snap *snapshot, before batch.State) (c batch.Commit, d difference, err error) {
	isUsers := s.userKey.Key != nil && snap.prefix == prefixOf(s.userKey.Session)
	if gs.Options != nil && gs.Options.MaxAge < 0 {
		c.Logout = isUsers && (before.User != "" || before.IsAmbiguous)
		if !c.Logout && snap.hasAny() {
			c.Prefix = snap.prefix
		}
		return c, d, nil
	}
	c.Renew = gs.ID == "" && snap.id != ""
	if d, err = snap.compare(gs.Values); err != nil {
		return c, d, err
	}
	if isUsers {
		if c.Login, c.Logout, err = s.loginOf(gs, &d, snap, before); err != nil {
			return c, d, err
		}
	}
	if c.Logout { // what is left begins a new session
		d, err = (&snapshot{prefix: snap.prefix}).compare(gs.Values)
	}
	c.Changes = d.changes
	return c, d, err
}

// isNothing reports whether a commit would change nothing.
func isNothing(c *batch.Commit) bool {
	return !c.Logout && c.Login == "" && !c.Renew && c.Prefix == "" && len(c.Changes) == 0
}

// hasAny reports whether an entry of the gorilla session is stored.
func (s *snapshot) hasAny() (has bool) {
	_, _ = s.to.Read(func(name string, _ []byte) { has = has || strings.HasPrefix(name, s.prefix) })
	return has
}
