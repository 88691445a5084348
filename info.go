package session

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/coatcheck/session/internal/body"
)

// An Info is what [Manager.List] says of one session: how the session was stored at that
// moment. Read its values by [Key.Of], and change them by [Manager.Edit].
type Info struct {
	ID         string    // see [Session.ID]: not a secret, may be logged and shown
	User       string    // as Login was given it
	Created    time.Time // when the user logged in last
	LastSeen   time.Time // when the session was last used, give or take 1/20 of the idle timeout
	Expires    time.Time // the nearer of idle and absolute end
	Remembered bool      // Remember set the session's end

	data func() []byte // Record.Data; nil: there is none. A func has no contents that a log could print
}

// infoOf returns the Info of a live record.
func infoOf(rec *Record) Info {
	data := rec.Data
	return Info{
		ID: rec.ID, User: rec.User, Created: rec.Created, LastSeen: rec.LastSeen, Expires: rec.Expires,
		Remembered: body.IsRemembered(rec.Data), data: func() []byte { return data },
	}
}

// Format implements fmt.Formatter. Whatever the verb, it prints the fields and no values.
func (i Info) Format(f fmt.State, _ rune) { fmt.Fprint(f, "session.Info", attrs(i)) }

// LogValue implements slog.LogValuer. It says what Format prints.
func (i Info) LogValue() slog.Value { return slog.GroupValue(attrs(i)...) }

// Of returns the value in a listed session, and whether there is one: see [Key.Lookup].
func (k Key[T]) Of(i Info) (T, bool) {
	if i.data == nil {
		var zero T
		return zero, false
	}
	return decode[T](body.Value(i.data(), k.name))
}
