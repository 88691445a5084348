package session

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/object"
)

// A Key is the name and the type of one value in a session. Declare keys as package variables; two
// keys of the same name refer to the same value.
//
// Values are stored as JSON: T is any type that encoding/json can encode and decode. A stored value
// that no longer decodes into T, because the program has changed, is absent, and the other values
// are not affected. Text that is not UTF-8 is an error: store bytes as []byte.
//
// What JSON does not contain is lost without an error, even if gob kept it: a field that is
// unexported or tagged `json:"-"` is the zero value when it is read, so a User{ID int64 `json:"-"`}
// becomes user 0. A number in a value of type any is read as a float64, which is exact up to 2⁵³:
// use a type of its own, or json.Number.
type Key[T any] struct{ name string }

// NewKey returns the key of this name. It panics if name is empty, is not valid UTF-8, or begins
// with "session.", which is reserved for this package.
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

// nameOf decodes the name of a member from JSON. It returns false for a name that NewKey
// refuses.
func nameOf(quoted string) (name string, ok bool) {
	name, ok = decode[string]([]byte(quoted))
	if !ok || name == "" || strings.HasPrefix(quoted, body.Reserved) {
		return "", false
	}
	spelled, err := encodeValue(name)
	return name, err == nil && string(spelled) == quoted // half a surrogate pair decodes to U+FFFD
}

// Get returns the value, or the zero value of T if there is none: see [Key.Lookup].
func (k Key[T]) Get(s *Session) T {
	v, _ := k.Lookup(s)
	return v
}

// Lookup returns the value and whether there is one. It decodes the value each time, so changing
// a slice or map that it has returned does not change the session. If the store fails, every value
// is absent, and [Session.Err] returns the failure.
func (k Key[T]) Lookup(s *Session) (T, bool) {
	return decode[T](s.use().value(k.name))
}

// Set stores v at the commit. It encodes v at once: later changes of what v refers to have no
// effect. A value that cannot be encoded, or contains text that is not UTF-8, fails the request
// through [Session.Err] and [Options].ErrorHandler, and nothing of the session is stored.
func (k Key[T]) Set(s *Session, v T) {
	raw, err := encodeValue(v)
	if err != nil {
		s.refuse(fmt.Errorf("session: Set %s: %w", k.name, err))
		return
	}
	s.change(body.Change{Call: "Set", Name: k.name, Raw: raw})
}

// Pop returns the value and deletes it at the commit. Concurrent requests may all get the value;
// use [Key.Take] if only one of them may. With Options.Tokens a value that does not decode stays,
// because another program wrote it.
func (k Key[T]) Pop(s *Session) (T, bool) {
	v, ok := k.Lookup(s)
	if ok || !s.m.keyless {
		k.Delete(s)
	}
	return v, ok
}

// Take removes the value and commits all pending changes before it returns. Of concurrent
// requests, in any process, exactly one gets the value: Take is for values that may be used once,
// such as a voucher or the state of an OAuth login. It costs a Save, or no store call if there is
// no value and no change is pending. Without a value it returns false and a nil error, and begins
// no session.
//
// Take takes the values and the deadline of ctx, not its cancellation. The caller handles the
// error, which does not replace the response: an [ErrStore], [ErrEnded], or [ErrReplaced]. It is
// ErrReplaced if the token was replaced, or if the value has changed since the renewal that
// replaced the token. After an error the value was not taken. Only after an [ErrIndeterminate] the
// value may be lost: at most one request gets it.
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

// Delete removes the value at the commit.
func (k Key[T]) Delete(s *Session) {
	if s.use().value(k.name) != nil {
		s.change(body.Change{Call: "Delete", Name: k.name})
	}
}

// Update replaces the value by f of it, atomically: if another request has committed another value
// first, the commit calls f again with that value, perhaps after the handler has returned. If the
// request acts on the value, use [Key.UpdateNow], because the value that f saw first is not final.
// f must have no side effects and must not call methods of the session. f gets the zero value of T
// if the value is absent or does not decode. With [Options].Tokens, a value that does not decode
// fails the request, because another program wrote it.
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

// UpdateNow updates the value as [Key.Update] does and commits all pending changes before it
// returns. It returns the value that was stored, which is the result of the last call of f. It is
// for limits, such as a number of tries: let UpdateNow count the try, and then compare the code.
//
// UpdateNow takes the values and the deadline of ctx, not its cancellation. The caller handles the
// error, which does not replace the response: an [ErrStore], a value that cannot be encoded,
// [ErrTooLarge], [ErrEnded], or [ErrReplaced]. It is ErrReplaced if the token was replaced, or if
// the value has changed since the renewal that replaced the token. After an error the update is
// dropped, and all other changes stay pending. After an [ErrIndeterminate] the update may have been
// stored; [Session.Reload] finds out.
//
// In a stored session, UpdateNow and [Key.Take] also work after the first byte of the response and
// after the handler has returned. If they would have to begin a session there, they return an
// error, because its cookie cannot be set.
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

// Refresh is for effects that must not happen twice, such as the use of a refresh token. If fresh
// returns true for the value, Refresh returns the value without a store call. Otherwise one of the
// concurrent requests of the session, in any process, calls f with the current value, and the
// others wait for the value that it saves.
//
// The request that calls f holds a lease. f has 30 seconds, or until the deadline of ctx if that is
// earlier; then the context of f ends, and f must return. The lease lasts [Options].StoreTimeout
// longer, for the Save, and another second, because each process compares the end of the lease with
// its own clock: the clocks must agree to a second. The context of f has the values of ctx, not its
// cancellation, so a user who leaves the page loses nothing. The value that f returns is saved at
// once, with all pending changes, unless another request has changed the value meanwhile. Refresh
// returns the value together with an error of that Save. If f fails or panics, nothing is saved,
// and the next request calls f. If the process dies, other requests wait until the lease ends.
//
// A request that has less than two seconds left does not begin f, because f could use up a
// credential and then be canceled. Such a request waits while another request holds the lease, and
// otherwise gets [context.DeadlineExceeded].
//
// Refresh returns the error of ctx if ctx ends while Refresh waits, [ErrEnded] if the session has
// ended, even if this request has ended it, and the error of [Session.Err] if the value is not
// available. fresh must not call methods of the session; f may, except Refresh of the same key. In
// a session that is not stored yet there are no concurrent requests, and f is called at once.
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

// decode decodes the value from which an update makes a new one. A value that does not decode is
// the zero value. With Options.Tokens it is an error, because another program wrote it.
func (k Key[T]) decode(s *Session, call string, in []byte) (T, error) {
	v, ok := decode[T](in)
	if !ok && in != nil && s.m.keyless {
		return v, fmt.Errorf("session: %s %s: the stored value does not decode into the key's type, and another program wrote it", call, k.name)
	}
	return v, nil
}

// encodeValue is json.Marshal with a fast path for common types.
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

// decode is json.Unmarshal with the same fast path.
func decode[T any](raw []byte) (v T, ok bool) {
	if raw == nil || decodePlain(raw, &v) {
		return v, raw != nil
	}
	return decodeJSON[T](raw)
}

// decodePlain is the fast path of decode. It returns false for other types and texts.
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

// plain reports whether s needs no escapes in JSON.
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

// Names returns the names of the values, sorted. With [Options].Tokens another program may
// use names that NewKey refuses: Names leaves those out.
func (s *Session) Names() []string {
	st := s.use()
	var names []string
	for _, quoted := range st.pending.changes.Names(st.data()) {
		if name, ok := nameOf(quoted); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
