package session

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/object"
)

// A Key names one value of a session and knows its type. Declare keys once, as
// package variables; two keys of one name are one value.
//
// Values are kept as JSON, in any type that encoding/json can encode and decode. A
// stored value that no longer decodes into T, because the program changed, is
// absent, and the rest of the session lives on. Text that is not UTF-8 is an error:
// keep bytes as []byte.
//
// What JSON does not hold is lost without an error, also where gob kept it: a field
// that is unexported or tagged `json:"-"` comes back as its zero value, so that a
// User{ID int64 `json:"-"`} becomes user 0. A number in an any comes back as a
// float64, exact up to 2⁵³ (use a type of its own, or json.Number).
type Key[T any] struct{ name string }

// NewKey returns the key of this name. It panics if name is empty, is not
// valid UTF-8 or begins with "session.", which this package keeps for itself.
func NewKey[T any](name string) Key[T] {
	switch {
	case name == "":
		panic("session: NewKey: the name is empty")
	case !utf8.ValidString(name):
		panic("session: NewKey: the name is not valid UTF-8")
	case strings.HasPrefix(name, "session."):
		panic(`session: NewKey: names beginning "session." are this package's own`)
	}
	quoted, _ := json.Marshal(name) // a string always encodes
	return Key[T]{string(quoted)}
}

// nameOf returns the name of a member as it stands in JSON. It returns false if NewKey
// makes no key of that member.
func nameOf(quoted string) (name string, ok bool) {
	name, ok = decode[string]([]byte(quoted))
	if !ok || name == "" || strings.HasPrefix(quoted, body.Reserved) {
		return "", false
	}
	spelled, err := encodeValue(name)
	return name, err == nil && string(spelled) == quoted // text with half a surrogate pair decodes to U+FFFD
}

// Get returns the value, or the zero value of T if there is none: see Lookup.
func (k Key[T]) Get(s *Session) T {
	v, _ := k.Lookup(s)
	return v
}

// Lookup returns the value and whether there is one. It decodes afresh every
// time, so that a slice or map it returned may be changed without changing the
// session. If the store fails, every value is absent and s.Err tells.
func (k Key[T]) Lookup(s *Session) (T, bool) {
	return decode[T](s.use().value(k.name))
}

// Set stores v. It encodes at once: what v refers to may change afterwards. A
// value that cannot be encoded, or has text that is not UTF-8, fails the request, through s.Err and
// Options.ErrorHandler, and nothing of the session is stored.
func (k Key[T]) Set(s *Session, v T) {
	raw, err := encodeValue(v)
	if err != nil {
		s.refuse(fmt.Errorf("session: Set %s: %w", k.name, err))
		return
	}
	s.change(body.Change{Call: "Set", Name: k.name, Raw: raw})
}

// Pop returns the value and deletes it at the commit. Concurrent requests may all
// get the value; use [Key.Take] where only one of them may.
func (k Key[T]) Pop(s *Session) (T, bool) {
	v, ok := k.Lookup(s)
	k.Delete(s)
	return v, ok
}

// Take removes the value and commits, with everything else that is pending, before
// it returns. Of concurrent requests, in whatever process, exactly one gets the
// value: Take is for what is good once, such as a voucher or the state of a sign-in.
// It costs a Save, and nothing where there is no value and nothing is pending.
// Without a value it returns false and a nil error, and begins no session.
//
// Take takes ctx's values and deadline, not its cancellation. Its error is the
// caller's to handle and does not replace the response: a failure of the store,
// [ErrEnded], or [ErrReplaced] if the token was replaced or the value has changed
// since the renewal that replaced it. The value then stays where it was, unless
// the error is an [ErrIndeterminate]: then no request may get it.
func (k Key[T]) Take(ctx context.Context, s *Session) (T, bool, error) {
	was, _, err := s.updateNow(ctx, "Take", k.name, func(in []byte) ([]byte, error) {
		if _, ok := decode[T](in); !ok {
			return nil, errUnchanged
		}
		return nil, nil
	})
	if err != nil {
		was = nil
	}
	v, ok := decode[T](was)
	return v, ok, err
}

// Delete forgets the value.
func (k Key[T]) Delete(s *Session) {
	if s.use().value(k.name) != nil {
		s.change(body.Change{Call: "Delete", Name: k.name})
	}
}

// Update replaces the value by f of it, atomically: if another request saved
// another value first, f runs again on that newer value, perhaps after the
// handler has returned. So what f saw is not final: where the request acts on it,
// use [Key.UpdateNow]. f must have no side effects and must not call the session's
// methods. An absent value is T's zero, and so is one that does not decode; with
// Options.Tokens the latter fails the request, for another program wrote it.
func (k Key[T]) Update(s *Session, f func(T) T) {
	s.update("Update", k.name, func(in []byte) ([]byte, error) {
		v, err := k.decode(s, "Update", in)
		if err != nil {
			return nil, err
		}
		raw, err := encodeValue(f(v))
		if err != nil {
			return nil, fmt.Errorf("session: Update %s: %w", k.name, err)
		}
		return raw, nil
	})
}

// UpdateNow is Update and a commit of everything that is pending, before it
// returns. The value that it returns is the one that was stored, made by the last
// call of f: nothing that another request does can change what f saw then. So it
// is for limits, such as the number of tries: compare the code after UpdateNow has
// counted the try.
//
// UpdateNow takes ctx's values and deadline, not its cancellation. Its error is the
// caller's to handle and does not replace the response: a failure of the store, a
// value that cannot be encoded, [ErrTooLarge], [ErrEnded], or [ErrReplaced] if the
// token was replaced or the value has changed since the renewal that replaced it.
// Its own change is then not pending any more, all others stay so; after an
// [ErrIndeterminate] it may have been stored, and a Reload finds out.
//
// In a session that is stored, UpdateNow and [Key.Take] also work after the first
// byte of the response and after the handler has returned. A session that would
// have to begin there cannot, for its cookie cannot be set: that is an error.
func (k Key[T]) UpdateNow(ctx context.Context, s *Session, f func(T) T) (T, error) {
	_, is, err := s.updateNow(ctx, "UpdateNow", k.name, func(in []byte) ([]byte, error) {
		v, err := k.decode(s, "UpdateNow", in)
		if err != nil {
			return nil, err
		}
		raw, err := encodeValue(f(v))
		if err != nil {
			return nil, fmt.Errorf("session: UpdateNow %s: %w", k.name, err)
		}
		return raw, nil
	})
	if err != nil {
		is = nil
	}
	v, _ := decode[T](is)
	return v, err
}

// Refresh is for effects that must not happen twice, such as using a refresh token
// that is good for one use. While fresh says no, of all requests of the session
// that overlap, in whatever process, one calls f, with the value as it is; the
// others wait for what it saved. A fresh value costs no call of the store.
//
// The request that calls f holds a lease. f has 30 seconds, or until ctx's deadline if
// that is sooner, and its context ends then: f must heed that. The lease outlives it by
// Options.StoreTimeout, for the Save of what f returned. f's context has ctx's values,
// not its cancellation: a user who goes to another page meanwhile loses nothing. What f
// returns is saved at once, with the session's other changes, unless another request has
// changed the value meanwhile; an error of the Save comes with it. If f fails or panics
// nothing is saved, and the next request calls it. If the process dies, others wait
// until the lease is over. The clocks of the processes should agree to a second or so.
//
// With less than two seconds left a request does not begin f: it waits while another
// holds the lease, and else returns context.DeadlineExceeded.
//
// Refresh returns ctx's error when that ends while it waits, ErrEnded if the session
// has ended, by this request too, and what Err says if it cannot be had. fresh must not
// call the session's methods; f may, but for Refresh of the same key. In a session that
// is not stored yet no request overlaps, and f is called at once.
func (k Key[T]) Refresh(ctx context.Context, s *Session, fresh func(T) bool, f func(context.Context, T) (T, error)) (T, error) {
	raw, err := s.refresh(ctx, k.name, func(raw []byte) bool {
		v, _ := decode[T](raw)
		return fresh(v)
	}, func(ctx context.Context, raw []byte) ([]byte, error) {
		in, err := k.decode(s, "Refresh", raw)
		if err != nil {
			return nil, err
		}
		v, err := f(ctx, in)
		if err != nil {
			return nil, err
		}
		if raw, err = encodeValue(v); err != nil {
			return nil, fmt.Errorf("session: Refresh %s: %w", k.name, err)
		}
		return raw, nil
	})
	v, _ := decode[T](raw)
	return v, err
}

// decode returns the value that a new one is made from. One that does not decode is
// zero, but with Options.Tokens it is an error: another program wrote it.
func (k Key[T]) decode(s *Session, call string, in []byte) (T, error) {
	v, ok := decode[T](in)
	if !ok && in != nil && s.m.keyless {
		return v, fmt.Errorf("session: %s %s: the stored value is none of the key's type; another program wrote it", call, k.name)
	}
	return v, nil
}

// encodeValue is json.Marshal with a short way for what most sessions hold.
func encodeValue[T any](v T) ([]byte, error) {
	switch v := any(v).(type) {
	case string:
		if plain(v) {
			b := append(make([]byte, 0, len(v)+2), '"')
			return append(append(b, v...), '"'), nil
		}
	case bool:
		return strconv.AppendBool(nil, v), nil
	case int:
		return strconv.AppendInt(nil, int64(v), 10), nil
	case int64:
		return strconv.AppendInt(nil, v, 10), nil
	}
	return object.Marshal(v)
}

// decode is json.Unmarshal with the same short way.
func decode[T any](raw []byte) (v T, ok bool) {
	if raw == nil || decodePlain(raw, &v) {
		return v, raw != nil
	}
	return decodeJSON[T](raw)
}

// decodePlain has the types of encodeValue's short way; false: not this way.
func decodePlain[T any](raw []byte, v *T) bool {
	switch v := any(v).(type) {
	case *string:
		if n := len(raw); n >= 2 && raw[0] == '"' && plain(raw[1:n-1]) && raw[n-1] == '"' {
			*v = string(raw[1 : n-1])
			return true
		}
	case *bool:
		*v = bytes.Equal(raw, []byte("true"))
		return *v || bytes.Equal(raw, []byte("false"))
	case *int:
		n, ok := object.Int(raw)
		*v = int(n)
		return ok && int64(int(n)) == n
	case *int64:
		n, ok := object.Int(raw)
		*v = n
		return ok
	}
	return false
}

// plain tells whether JSON spells a string as it is.
func plain[S string | []byte](s S) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c < ' ' || c > '~', c == '"', c == '\\', c == '<', c == '>', c == '&':
			return false
		}
	}
	return true
}

func decodeJSON[T any](raw []byte) (T, bool) {
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		var zero T
		return zero, false
	}
	return v, true
}
