package expressjs

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/coatcheck/session/internal/mistake"
	"github.com/coatcheck/session/internal/object"
)

// userPath returns the path to the member that names the user, from the record inward, or nil.
func (o *Options) userPath() []string {
	switch {
	case o.Passport:
		return []string{"passport", "user"}
	case o.UserMember != "":
		return strings.Split(o.UserMember, ".")
	}
	return nil
}

// namesUser reports whether a member of the record names the user.
func (o *Options) namesUser() bool { return o.userPath() != nil }

// userMember returns the member that names the user, or nil.
func (o *Options) userMember(list []named) []byte { return memberAt(list, o.userPath()) }

func memberAt(list []named, path []string) (raw []byte) {
	for i, name := range path {
		if i > 0 {
			list, _ = members(raw)
		}
		raw = find(list, name)
	}
	return raw
}

// userText returns the user in a member, which is text or a number, or "".
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

// userRaw returns the JSON form of a user in a record.
func (o *Options) userRaw(user string) ([]byte, error) {
	if !utf8.ValidString(user) {
		return nil, mistake.New("expressjs: Login: the user is not valid UTF-8, and a record cannot store it")
	}
	if !o.NumericUser {
		return text(user), nil
	}
	const most = 1<<53 - 1 // largest integer that JavaScript represents exactly
	if n, err := strconv.ParseInt(user, 10, 64); err != nil || strconv.FormatInt(n, 10) != user || n > most || n < -most {
		return nil, mistake.New("expressjs: Login: with Options.NumericUser the user must be an integer of at most 2^53-1, as JSON spells it")
	}
	return []byte(user), nil
}

// withUser returns the values of a record with the member that names the user. was are the values
// before. Only a Login may change that member: another change of it is a mistake of the program.
func (o *Options) withUser(list, was []named, user string) ([]named, error) {
	path := o.userPath()
	if path == nil {
		return list, nil
	}
	raw := memberAt(list, path)
	names := userText(raw)
	isChanged := !isNone(raw) && !bytes.Equal(raw, memberAt(was, path))
	isInherited := was == nil && user != "" && names == "" // a new session of a Login keeps the value
	if isChanged && (user == "" || names != user) && !isInherited {
		return nil, mistake.New("expressjs: only Login may change %s: use another Key", strings.Join(path, "."))
	}
	if user == "" || names == user {
		return list, nil
	}
	raw, err := o.userRaw(user)
	if err != nil {
		return nil, err
	}
	return withMember(list, path, raw), nil
}

// withMember returns the members with another value at the end of path. A value on the path that is
// not an object is replaced by one.
func withMember(list []named, path []string, raw []byte) []named {
	name := path[0]
	if len(path) > 1 {
		inside, _ := members(find(list, name))
		raw = asObject(withMember(inside, path[1:], raw))
	}
	m := named{object.Member{Name: text(name), Raw: raw}, name}
	if i := slices.IndexFunc(list, func(n named) bool { return n.name == name }); i >= 0 {
		list = slices.Clone(list)
		list[i].Raw = raw
		return list
	}
	return append(slices.Clip(list), m)
}

func asObject(list []named) []byte {
	all := make([]object.Member, len(list))
	for i := range list {
		all[i] = list[i].Member
	}
	return object.Write(all)
}

// adviseUser logs once if the member that should name the user is an object.
func (s *records) adviseUser(raw []byte) {
	inside, err := members(raw)
	if err != nil || !s.advised.CompareAndSwap(false, true) {
		return
	}
	member := strings.Join(s.o.userPath(), ".")
	name, ok := likelyUser(inside)
	if !ok {
		name = "id"
	}
	slog.Warn("expressjs: the member that should name the user is an object; set Options.UserMember to the member of that object in the attribute UserMember, and unset Options.Passport (logged once)",
		"member", member, "UserMember", member+"."+name)
}

// likelyUser returns the member of an object that most likely names a user.
func likelyUser(list []named) (name string, ok bool) {
	for _, name := range []string{"id", "_id", "userId", "uid", "sub", "username", "email"} {
		if userText(find(list, name)) != "" {
			return name, true
		}
	}
	for i := range list {
		if name := list[i].name; userText(list[i].Raw) != "" && !strings.Contains(name, ".") {
			return name, true
		}
	}
	return "", false
}
