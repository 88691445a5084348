package expressjs

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/mistake"
	"github.com/coatcheck/session/internal/object"
)

// write returns the record that Express is to find after a Create, or a Save over
// the record before, and what Go notes beside it. What nobody changed stands where it
// stood, byte for byte.
func (o *Options) write(r *session.Record, before []byte, now time.Time) (raw []byte, w *own, err error) {
	w = &own{version: r.Version, user: r.User, created: r.Created, seen: r.LastSeen, deadline: r.Deadline, expires: r.Expires}
	var was []named
	if before != nil {
		if was, err = members(before); err != nil {
			return nil, nil, err
		}
	}
	is, err := members(r.Data)
	if err != nil || !utf8.Valid(r.Data) { // none of a Manager's
		is, w.isExact = nil, true
	}
	remembered := find(is, "session.remember") != nil
	for i := range is {
		if !is[i].shared() && !strings.HasPrefix(is[i].name, "session.") {
			return nil, nil, mistake.New("expressjs: a value cannot have the name %q: it is a property of every Express session", is[i].name)
		}
	}
	if is, err = o.withUser(is, was, r.User); err != nil {
		return nil, nil, err
	}
	c := o.newCookie()
	if old := find(was, "cookie"); old != nil {
		c = o.cookieOf(old)
	}
	c.until(r.Expires, now, remembered)
	all := make([]object.Member, 0, len(was)+len(is)+1)
	if find(was, "cookie") == nil {
		all = append(all, object.Member{Name: []byte(`"cookie"`), Raw: c.json()})
	}
	for i := range was {
		switch n := &was[i]; {
		case n.name == "cookie":
			all = append(all, object.Member{Name: n.Name, Raw: c.json()})
		case !n.shared():
			all = append(all, n.Member)
		default:
			if v := find(is, n.name); v != nil {
				all = append(all, object.Member{Name: n.Name, Raw: v})
			}
		}
	}
	for i := range is {
		if find(was, is[i].name) == nil {
			all = append(all, is[i].Member)
		}
	}
	raw = object.Write(all)
	w.sum, _ = digest(raw)
	if w.isExact = w.isExact || !same(raw, r.Data, o.namesUser() && r.User != ""); w.isExact {
		w.exact = r.Data
	}
	w.until = w.untilLive(o.window(c))
	return raw, w, nil
}

// same tells whether the values of the record are those of Data, in whatever order;
// the user's member may come to them.
func same(raw, data []byte, user bool) bool {
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
	n, size := 0, len("{}")
	for i := range list {
		if !list[i].shared() {
			continue
		}
		n++
		if v := object.Get(values, string(list[i].quoted())); !bytes.Equal(v, list[i].Raw) {
			return false
		}
	}
	for _, v := range values {
		size += v.Size()
	}
	return n == len(values) && len(data) == size-min(n, 1)
}
