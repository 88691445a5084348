package expressjs

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/coatcheck/session/internal/object"
)

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
