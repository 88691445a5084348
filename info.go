package session

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/coatcheck/session/internal/body"
)

// An Info describes one session as it was stored when [Manager.List] was called. [Key.Of] reads its
// values, and [Manager.Edit] changes them.
type Info struct {
	ID         string    // see [Session.ID]: not a secret, may be logged and shown
	User       string    // the user of the last Login
	Created    time.Time // when Login was last called
	LastSeen   time.Time // when the session was last used, with a tolerance of 1/20 of the idle timeout
	Expires    time.Time // the earlier of the idle and the absolute end
	Remembered bool      // whether Remember has set the end

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

// Format implements fmt.Formatter. It prints the fields and no values, for every verb.
func (i Info) Format(f fmt.State, _ rune) { fmt.Fprint(f, "session.Info", attrs(i)) }

// LogValue implements slog.LogValuer. It contains the same fields as Format prints.
func (i Info) LogValue() slog.Value { return slog.GroupValue(attrs(i)...) }

// Of returns the value in a listed session, and whether there is one: see [Key.Lookup].
func (k Key[T]) Of(i Info) (T, bool) {
	if i.data == nil {
		var zero T
		return zero, false
	}
	return decode[T](body.Value(i.data(), k.name))
}
