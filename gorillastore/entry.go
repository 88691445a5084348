package gorillastore

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/coatcheck/session/internal/object"
)

// An entry is one entry of Values as it is stored: a JSON string if the key is a string and the
// value no list, otherwise a JSON object.
type entry struct {
	Key   string `json:"k,omitempty"` // encoded; "": the key is the string in the entry's name
	Value string `json:"v,omitempty"` // encoded; "": the entry is a list
	Items []item `json:"l,omitempty"`
}

// An item is one item of a list. Lists are values of the type []interface{}, which flashes have:
// concurrent requests add and remove items by their ids.
type item [2]string

func (i item) id() string    { return i[0] }
func (i item) value() string { return i[1] } // encoded

const idLen = 10 // of 32 letters: 50 random bits among the items of one list

func newItem(value string) item { return item{rand.Text()[:idLen], value} }

func (e *entry) isList() bool { return e.Value == "" }

// emptyList is the Value of an empty list that the application has stored.
const emptyList = "e"

// marshal returns the entry in JSON, or nil if nothing is left of it.
func (e *entry) marshal() ([]byte, error) {
	switch {
	case e.isList() && len(e.Items) == 0:
		return nil, nil
	case e.Key == "" && !e.isList():
		return object.Marshal(e.Value)
	}
	return object.Marshal(e)
}

// unmarshal parses an entry.
func (e *entry) unmarshal(raw []byte) (err error) {
	isString := len(raw) > 1 && raw[0] == '"'
	switch {
	case isString && isPlain(raw[1:len(raw)-1]):
		e.Value = string(raw[1 : len(raw)-1])
	case isString:
		err = json.Unmarshal(raw, &e.Value)
	default:
		err = json.Unmarshal(raw, e)
	}
	if err == nil && e.isList() && len(e.Items) == 0 {
		err = errEntry
	}
	return err
}

// isPlain reports whether the text of a JSON string has no escapes.
func isPlain(text []byte) bool {
	for _, c := range text {
		if c < ' ' || c > '~' || c == '\\' {
			return false
		}
	}
	return true
}

// prefixOf returns the beginning of the names of all values that belong to one gorilla session. No
// name of a gorilla session contains a slash.
func prefixOf(name string) string { return "gorilla/" + name + "/" }

// nameOf returns the name of the entry of this key after the prefix. It does not depend on the
// process, so gob is of no use for it: keys that are not plain strings have the hash of their
// type and of what they contain.
func nameOf(key any) string {
	if key, ok := key.(string); ok && utf8.ValidString(key) && !strings.HasPrefix(key, "/") {
		return key
	}
	is := ""
	if t := reflect.TypeOf(key); t != nil {
		is = t.PkgPath() + " " + t.String()
	}
	hash := sha256.Sum256(fmt.Appendf(nil, "%s %#v", is, key))
	return "/" + base64.RawURLEncoding.EncodeToString(hash[:16])
}

// keyOf returns the key of the entry.
func (e *entry) keyOf(name string) (any, error) {
	if e.Key != "" {
		return decode(e.Key)
	}
	if strings.HasPrefix(name, "/") {
		return nil, errEntry
	}
	return name, nil
}

// values decodes the items of a list. It leaves out those that do not decode, and returns the
// others beside their values.
func (e *entry) values() (decoded []item, values []any) {
	values = []any{} // never nil, as the application has stored it
	for _, it := range e.Items {
		if v, err := decode(it.value()); err == nil {
			decoded, values = append(decoded, it), append(values, v)
		}
	}
	return decoded, values
}

// split compares a list with the items that were seen. It returns the seen items with which the
// list begins, in order but perhaps not all, and the items that follow them, with new ids.
func split(seen []item, list []string) (kept, added []item) {
	for i, next := 0, 0; i < len(list); i++ {
		at := slices.IndexFunc(seen[next:], func(it item) bool { return isSame(it.value(), list[i]) })
		if at < 0 {
			for _, v := range list[i:] {
				added = append(added, newItem(v))
			}
			break
		}
		kept = append(kept, seen[next+at])
		next += at + 1
	}
	return kept, added
}

// merge returns the entry that a commit stores for a list: the items that it finds stored, without
// those of seen that are not in is, and then those of is that are not in seen.
func merge(in []byte, key string, seen, is []item, isDeleted bool) ([]byte, error) {
	var stored entry
	if in == nil || stored.unmarshal(in) != nil || !stored.isList() && stored.Value != emptyList {
		stored = entry{Items: nil}
		if in != nil { // another request has set a value of another type, which this list replaces
			seen = nil
		}
	}
	items := slices.DeleteFunc(stored.Items, func(it item) bool { return hasID(seen, it) && !hasID(is, it) })
	for _, it := range is {
		if !hasID(seen, it) {
			items = append(items, it)
		}
	}
	e := entry{Key: key, Items: items}
	if len(items) == 0 && !isDeleted {
		e.Value = emptyList
	}
	return e.marshal()
}

func hasID(items []item, it item) bool {
	return slices.ContainsFunc(items, func(other item) bool { return other.id() == it.id() })
}
