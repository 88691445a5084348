package expressjs

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/object"
)

// A snapshot is what a store has of a session: the record that Express shares, and
// what only Go knows of it.
type snapshot struct {
	raw     []byte // of Express; nil: there is none
	expires time.Time
	lasting bool // the record has no end of its own, and expires is not set
	own     *own // nil: Go has not written this session yet
}

// forever is the absolute end of a session that Express made, which knows none.
var forever = time.UnixMilli(253402300799999) // the year 9999

// reserved are the properties of an Express session and of every object: Express
// would drop a value of that name, or break.
var reserved = map[string]bool{}

func init() {
	for name := range strings.FieldsSeq(`cookie id req touch resetMaxAge save reload destroy regenerate
		constructor hasOwnProperty isPrototypeOf propertyIsEnumerable toString toLocaleString valueOf
		__proto__ __defineGetter__ __defineSetter__ __lookupGetter__ __lookupSetter__`) {
		reserved[name] = true
	}
}

// ours tells whether a member that begins "session." is one that the Manager keeps in
// a session's values. The others are not to come from a record that Express wrote.
func ours(name string) bool {
	return name == "session.flashes" || name == "session.remember" || name == "session.leases"
}

var errDamaged = errors.New("the record is not a JSON object, and Express answers every request of this session with an error")

// members returns the members of a record, their names decoded, and of several of a
// name the last, as JSON.parse has it.
func members(raw []byte) ([]named, error) {
	all, err := object.Append(make([]object.Member, 0, 16), raw)
	if err != nil || len(raw) == 0 || !json.Valid(raw) {
		return nil, errDamaged
	}
	list := make([]named, 0, len(all))
	for _, m := range all {
		n := named{Member: m}
		if inside := m.Name[1 : len(m.Name)-1]; bytes.IndexByte(inside, '\\') < 0 {
			n.name = string(inside)
		} else if json.Unmarshal(m.Name, &n.name) != nil {
			return nil, errDamaged
		}
		list = slices.DeleteFunc(list, func(other named) bool { return other.name == n.name })
		list = append(list, n)
	}
	return list, nil
}

type named struct {
	object.Member
	name string
}

// shared tells whether a member is a value for both sides.
func (n *named) shared() bool {
	return !reserved[n.name] && (!strings.HasPrefix(n.name, "session.") || ours(n.name))
}

// quoted is the name as encoding/json spells it, and so does the Manager.
func (n *named) quoted() []byte {
	for _, c := range n.Name[1 : len(n.Name)-1] {
		if c < ' ' || c > '~' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return text(n.name)
		}
	}
	return n.Name
}

func find(list []named, name string) []byte {
	for i := range list {
		if list[i].name == name {
			return list[i].Raw
		}
	}
	return nil
}

// isNone tells whether Express takes what is stored for no session.
func isNone(raw []byte) bool {
	switch string(bytes.TrimSpace(raw)) {
	case "", "null", "false", "0", `""`:
		return true
	}
	return false
}

// record returns the snapshot as the Manager sees it, or session.ErrNotFound.
func (o *Options) record(id string, s *snapshot, now time.Time) (*session.Record, error) {
	r := &session.Record{ID: id, Deadline: forever}
	if s.own != nil {
		r.User, r.Created, r.LastSeen, r.Deadline = s.own.user, s.own.created, s.own.seen, s.own.deadline
		if s.own.tombstone != nil {
			r.Data, r.Version, r.Expires = s.own.tombstone, s.own.version, s.own.expires
			return live(r, now)
		}
	}
	if isNone(s.raw) {
		return nil, session.ErrNotFound
	}
	list, err := members(s.raw)
	if err != nil {
		return nil, err
	}
	window := func() time.Duration { return o.window(o.cookieOf(find(list, "cookie"))) }
	switch {
	case s.lasting: // until the next touch
		r.Expires = now.Add(window()).Truncate(time.Millisecond)
	case s.own != nil && s.expires.Sub(s.own.expires).Abs() < time.Second:
		r.Expires = s.own.expires
	default: // Express has touched it since
		r.Expires = s.expires.Truncate(time.Millisecond)
		if used := r.Expires.Add(-window()); used.After(r.LastSeen) && !used.After(now) {
			r.LastSeen = used
		}
	}
	sum, version := digest(s.raw)
	if s.own != nil && s.own.sum == sum {
		r.Version = s.own.version
		if s.own.isExact {
			r.Data = s.own.exact
			return live(r, now)
		}
	} else {
		r.Version = version
		if o.namesUser() {
			r.User = userText(o.userMember(list))
		}
	}
	r.Data = data(list)
	return live(r, now)
}

// live returns the record with its two ends in order, or ErrNotFound if its time is
// up.
func live(r *session.Record, now time.Time) (*session.Record, error) {
	if r.Expires.After(r.Deadline) {
		r.Expires = r.Deadline
	}
	if !now.Before(r.Expires) {
		return nil, session.ErrNotFound
	}
	return r, nil
}

// data returns the values of a record for the Manager: without the cookie and what
// else only Express is to see, and with names as encoding/json spells them.
func data(list []named) []byte {
	values := make([]object.Member, 0, len(list))
	for i := range list {
		if list[i].shared() {
			values = append(values, object.Member{Name: list[i].quoted(), Raw: list[i].Raw})
		}
	}
	return object.Write(values)
}

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
			return nil, nil, fmt.Errorf("expressjs: a value cannot have the name %q: it is a property of every Express session", is[i].name)
		}
	}
	if is, err = o.withUser(is, r.User); err != nil {
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

// namesUser tells whether a member of the record is the user.
func (o *Options) namesUser() bool { return o.Passport || o.UserMember != "" }

// userMember returns the member that names the user, or nil.
func (o *Options) userMember(list []named) []byte {
	if o.Passport {
		return object.Find(find(list, "passport"), `"user"`)
	}
	return find(list, o.UserMember)
}

// userText is the user whom a member names, as text or as a number.
func userText(raw []byte) string {
	var s string
	var n json.Number
	switch {
	case json.Unmarshal(raw, &s) == nil:
		return s
	case len(raw) > 0 && raw[0] != '"' && json.Unmarshal(raw, &n) == nil:
		return n.String()
	}
	return ""
}

// withUser sees to it that the member that is to name the user does.
func (o *Options) withUser(list []named, user string) ([]named, error) {
	if !o.namesUser() || user == "" || userText(o.userMember(list)) == user {
		return list, nil
	}
	raw := text(user)
	if n := json.Number(user); o.NumericUser {
		if _, err := n.Int64(); err != nil || userText([]byte(user)) != user {
			return nil, fmt.Errorf("expressjs: Options.NumericUser: the user is no integer as JSON spells it")
		}
		raw = []byte(user)
	}
	name := o.UserMember
	if o.Passport {
		name = "passport"
		inside, err := object.Append(nil, find(list, name))
		if err != nil {
			inside = nil
		}
		raw = object.Write(object.Set(inside, `"user"`, raw))
	}
	list = slices.DeleteFunc(slices.Clone(list), func(n named) bool { return n.name == name })
	return append(list, named{object.Member{Name: text(name), Raw: raw}, name}), nil
}

// isTombstone tells whether Data is a Manager's tombstone: the session has ended, and
// Express is to find nothing.
func isTombstone(data []byte) bool { return bytes.HasPrefix(data, []byte(`{"session.ended"`)) }

// digest returns what tells one record from another, and the version of one that
// Express wrote.
func digest(raw []byte) (sum string, version uint64) {
	all := sha256.Sum256(raw)
	return string(all[:16]), max(1, binary.BigEndian.Uint64(all[16:])>>1)
}
