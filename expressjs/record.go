package expressjs

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/object"
)

// A snapshot is the stored state of a session: the record that Express shares, and what only Go
// stores.
type snapshot struct {
	raw     []byte // record of Express; nil: none
	expires time.Time
	lasting bool // the record never expires in the store, and expires is not set
	own     *own // nil: Go has not written this session yet
}

// forever is the absolute end of a session that Express made, because Express has no absolute end.
var forever = time.UnixMilli(253402300799999) // the year 9999

// reserved are the properties of an Express session and of every object: Express would drop a value
// of that name, or fail.
var reserved = map[string]bool{}

func init() {
	for name := range strings.FieldsSeq(`cookie id req touch resetMaxAge save reload destroy regenerate
		constructor hasOwnProperty isPrototypeOf propertyIsEnumerable toString toLocaleString valueOf
		__proto__ __defineGetter__ __defineSetter__ __lookupGetter__ __lookupSetter__`) {
		reserved[name] = true
	}
}

var errDamaged = errors.New("the record is not a JSON object: the app's store uses its own serializer, which cannot be shared, or another program has written it, and Express answers every request of this session with an error")

// members returns the members of a record with their decoded names. If a name is repeated, the last
// member counts, as for JSON.parse. The name of a member with half a surrogate pair is not valid
// text in Go: it is notText and the name as it is in the JSON.
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
		} else if hasLoneSurrogate(inside) {
			n.name = notText + string(m.Name)
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

const notText = "\xff"

// hasLoneSurrogate reports whether text in its JSON form has an escape of half a surrogate pair.
func hasLoneSurrogate(text []byte) bool {
	unit := func(at int) (r rune) {
		if at+6 <= len(text) && text[at] == '\\' && text[at+1] == 'u' {
			n, _ := strconv.ParseUint(string(text[at+2:at+6]), 16, 16)
			r = rune(n)
		}
		return r
	}
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		switch r := unit(i); {
		case !utf16.IsSurrogate(r):
			i++
		case utf16.DecodeRune(r, unit(i+6)) == utf8.RuneError:
			return true
		default:
			i += len(`\ud83d\ude00`) - 1
		}
	}
	return false
}

// isShared reports whether a member is a value for both Go and Express.
func (n *named) isShared() bool {
	return !reserved[n.name] && body.IsForeign(n.name)
}

// quoted returns the name in the JSON form of encoding/json, which the Manager uses too.
func (n *named) quoted() []byte {
	if strings.HasPrefix(n.name, notText) {
		return n.Name
	}
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

// isNone reports whether Express treats this record as no session.
func isNone(raw []byte) bool {
	switch string(bytes.TrimSpace(raw)) {
	case "", "null", "false", "0", `""`:
		return true
	}
	return false
}

// record returns the Record of a snapshot for the Manager, or session.ErrNotFound.
func (s *records) record(id string, found *snapshot, now time.Time) (*session.Record, error) {
	r := &session.Record{ID: id, Deadline: forever}
	if found.own != nil {
		r.User, r.Created, r.LastSeen, r.Deadline = found.own.user, found.own.created, found.own.seen, found.own.deadline
		if found.own.tombstone != nil {
			r.Data, r.Version, r.Expires = found.own.tombstone, found.own.version, found.own.expires
			return live(r, now)
		}
	}
	if isNone(found.raw) {
		return nil, session.ErrNotFound
	}
	list, err := members(found.raw)
	if err != nil {
		return nil, err
	}
	window := func() time.Duration { return s.o.window(s.o.cookieOf(find(list, "cookie"))) }
	switch {
	case found.lasting: // the next touch gives the record an end
		r.Expires = now.Add(window()).Truncate(time.Millisecond)
	case found.own != nil && found.expires.Sub(found.own.expires).Abs() < time.Second:
		r.Expires = found.own.expires
	default: // Express has touched the record since Go wrote it
		r.Expires = found.expires.Truncate(time.Millisecond)
		if used := r.Expires.Add(-window()); used.After(r.LastSeen) && !used.After(now) {
			r.LastSeen = used
		}
	}
	sum, version := digest(found.raw)
	if found.own != nil && found.own.sum == sum {
		r.Version = found.own.version
		if found.own.isExact {
			r.Data = found.own.exact
			return live(r, now)
		}
	} else {
		r.Version = version
		raw := s.o.userMember(list)
		if r.User = userText(raw); r.User == "" { // no user: Express may have logged out a user that Go has logged in
			s.adviseUser(raw)
		}
	}
	r.Data = object.Write(s.o.values(list))
	return live(r, now)
}

// live returns r with Expires no later than Deadline, or ErrNotFound if r has expired.
func live(r *session.Record, now time.Time) (*session.Record, error) {
	if r.Expires.After(r.Deadline) {
		r.Expires = r.Deadline
	}
	if !now.Before(r.Expires) {
		return nil, session.ErrNotFound
	}
	return r, nil
}

// values returns the values of a record for the Manager: without the cookie and the other members
// for Express only, and with names in the form of encoding/json. The idle timeout is added if the
// cookie has one.
func (o *Options) values(list []named) []object.Member {
	values := make([]object.Member, 0, len(list)+1)
	if ms, ok := o.cookieOf(find(list, "cookie")).idle(); ok {
		values = append(values, object.Member{Name: []byte(body.IdleTimeout), Raw: object.Number(ms)})
	}
	for i := range list {
		if list[i].isShared() {
			values = append(values, object.Member{Name: list[i].quoted(), Raw: list[i].Raw})
		}
	}
	return values
}

// digest returns the sum that identifies a record, and the version of a record that Express wrote.
func digest(raw []byte) (sum string, version uint64) {
	all := sha256.Sum256(raw)
	return string(all[:16]), max(1, binary.BigEndian.Uint64(all[16:])>>1)
}
