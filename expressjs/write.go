package expressjs

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/mistake"
	"github.com/coatcheck/session/internal/object"
)

// write returns the record for Express after a Create, or after a Save over the record before, and
// what only Go stores. Unchanged members keep their place and their bytes.
func (o *Options) write(r *session.Record, before []byte) (raw []byte, w *own, err error) {
	w = &own{version: r.Version, user: r.User, created: r.Created, seen: r.LastSeen, deadline: r.Deadline, expires: r.Expires}
	var old []named
	if before != nil {
		if old, err = members(before); err != nil {
			return nil, nil, err
		}
	}
	values, err := members(r.Data)
	if err != nil || !utf8.Valid(r.Data) { // not written by a Manager
		values, w.isExact = nil, true
	}
	idle, _ := object.Int(find(values, idleName))
	values = slices.DeleteFunc(values, func(n named) bool { return n.name == idleName })
	for i := range values {
		if !values[i].isShared() && !strings.HasPrefix(values[i].name, "session.") {
			return nil, nil, mistake.New("expressjs: a value cannot have the name %q: it is a property of every Express session", values[i].name)
		}
	}
	if values, err = o.withUser(values, old, r.User); err != nil {
		return nil, nil, err
	}
	c := o.newCookie()
	if raw := find(old, "cookie"); raw != nil {
		c = o.cookieOf(raw)
	}
	c.until(r.Expires, idle)
	all := make([]object.Member, 0, len(old)+len(values)+1)
	if find(old, "cookie") == nil {
		all = append(all, object.Member{Name: []byte(`"cookie"`), Raw: c.json()})
	}
	for i := range old {
		switch n := &old[i]; {
		case n.name == "cookie":
			all = append(all, object.Member{Name: n.Name, Raw: c.json()})
		case !n.isShared():
			all = append(all, n.Member)
		default:
			if v := find(values, n.name); v != nil {
				all = append(all, object.Member{Name: n.Name, Raw: v})
			}
		}
	}
	for i := range values {
		if find(old, values[i].name) == nil {
			all = append(all, values[i].Member)
		}
	}
	raw = object.Write(all)
	w.sum, _ = digest(raw)
	if w.isExact = w.isExact || !o.same(raw, r.Data, o.namesUser() && r.User != ""); w.isExact {
		w.exact = r.Data
	}
	if w.isExact || !o.namesUser() || r.User == "" {
		w.data = append([]byte{}, r.Data...)
	}
	w.until = w.untilLive(o.window(c))
	return raw, w, nil
}

// idleName is the name of the idle timeout of the session in Data. In the record it is
// cookie.originalMaxAge.
var idleName = object.Unquote([]byte(body.IdleTimeout))

// same reports whether the values of the record equal those of Data, in any order. With user, the
// record also has the member that names the user.
func (o *Options) same(raw, data []byte, user bool) bool {
	if user {
		return json.Valid(data)
	}
	list, err := members(raw)
	if err != nil {
		return false
	}
	values, err := object.Append(nil, data)
	if err != nil {
		return false
	}
	all, size := o.values(list), len("{}")
	for _, m := range all {
		if v := object.Get(values, string(m.Name)); !bytes.Equal(v, m.Raw) {
			return false
		}
		size += m.Size()
	}
	return len(all) == len(values) && len(data) == size-min(len(all), 1)
}
