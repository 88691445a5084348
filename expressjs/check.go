package expressjs

import (
	"fmt"
	"strings"

	"github.com/coatcheck/session/internal/object"
)

// Problems describes what in a record, as it is stored in Redis or in the column sess, makes
// Express fail or lose data. It returns nil if there is no problem.
func Problems(record []byte) (all []string) {
	problem := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if isNone(record) {
		problem("the record is empty: Express treats that as no session")
		return all
	}
	list, err := members(record)
	if err != nil {
		problem("%v", err)
		return all
	}
	const wrapped = ", unless the app's store uses its own serializer, which cannot be shared"
	raw := find(list, "cookie")
	inside, err := object.Append(nil, raw)
	switch {
	case raw == nil:
		problem("the record has no cookie object: Express answers every request of this session with an error" + wrapped)
	case err != nil:
		problem("cookie is not an object: Express answers every request of this session with an error" + wrapped)
	}
	for _, m := range inside {
		if name := string(m.Name); !isValidMember(name, string(m.Raw)) {
			problem("cookie.%s is %.40s: %s", strings.Trim(name, `"`), m.Raw, consequence(name))
		}
	}
	for i := range list {
		if n := &list[i]; n.name != "cookie" && reserved[n.name] {
			problem("the record has a value %q, which Express drops: every session has a property of that name", n.name)
		}
	}
	return all
}

// consequence describes what Express does with an invalid member of a cookie object.
func consequence(name string) string {
	switch name {
	case `"originalMaxAge"`:
		return "it must be a number of milliseconds, null or false, or Express never answers a request of this session"
	case `"expires"`:
		return "it must be a time such as 2030-01-02T03:04:05.678Z, null or false"
	case `"sameSite"`, `"priority"`:
		return "Express sets no cookie and reports no error"
	}
	return "Express does not expect this value"
}

// usualMembers are the members in which most apps store the logged-in user.
var usualMembers = strings.Fields(`passport.user userId user userID userid user_id uid
	username userName account accountId account_id member memberId currentUser loggedInUser email`)

// UserOptions returns Options with Passport, UserMember and NumericUser for each member of a
// record that probably names the user, the most probable first.
func UserOptions(record []byte) (all []Options) {
	list, err := members(record)
	if err != nil {
		return nil
	}
	for _, member := range usualMembers {
		raw := memberAt(list, strings.Split(member, "."))
		if inside, err := members(raw); err == nil {
			name, ok := likelyUser(inside)
			if !ok {
				continue
			}
			member, raw = member+"."+name, find(inside, name)
		}
		if userText(raw) == "" {
			continue
		}
		o := Options{UserMember: member, NumericUser: true}
		written, err := o.userRaw(userText(raw))
		o.NumericUser = err == nil && string(written) == string(raw)
		if member == "passport.user" {
			o.Passport, o.UserMember = true, ""
		}
		all = append(all, o)
	}
	return all
}
