package session

import (
	"time"

	"github.com/coatcheck/session/internal/body"
)

// tombstoneLife is how long a tombstone is kept, for requests that were in flight when the
// session ended.
const tombstoneLife = time.Minute

// dropAfterEnd is the time after a Logout or Revoke during which a request that arrives with
// the ended token begins no session: a login may be in flight at the same time, and the
// cookie of a new session would overwrite the login's.
const dropAfterEnd = 2 * time.Second

// tombstone returns the record that replaces rec when its session ends. next is the id of
// the session that a Login began, or "".
func tombstone(rec *Record, why body.Reason, next string) *Record {
	now := milliseconds(time.Now())
	end := now.Add(tombstoneLife)
	return &Record{
		ID:       rec.ID,
		Data:     body.Ending{Reason: why, At: now, Next: next}.Tombstone(),
		Created:  rec.Created,
		LastSeen: rec.LastSeen,
		Deadline: end,
		Expires:  end,
		Version:  newVersion(),
	}
}

// redirected returns the tombstone rec with next as the session that a Login began.
func redirected(rec *Record, next string) *Record {
	ending, _ := body.EndingOf(rec.Data)
	ending.Next = next
	changed := *rec
	changed.Data, changed.Version = ending.Tombstone(), newVersion()
	return &changed
}

// isLive reports whether rec is the record of a session: neither nil nor a tombstone.
func isLive(rec *Record) bool { return rec != nil && !body.IsTombstone(rec.Data) }

// endOf returns when a tombstone's session ended.
func endOf(rec *Record) time.Time {
	ending, _ := body.EndingOf(rec.Data)
	if ending.At.IsZero() {
		return rec.Expires.Add(-tombstoneLife)
	}
	return ending.At
}

// statusOf returns the status of the session whose record is rec. If rec is nil, the session has
// ended. If rec is a tombstone, statusOf also returns the id of the session that a Login began in
// its place, or "", and the reason.
func statusOf(rec *Record) (s status, successor string, why body.Reason) {
	switch {
	case rec == nil:
		return statusEnded, "", ""
	case !body.IsTombstone(rec.Data):
		return statusLive, "", ""
	}
	ending, _ := body.EndingOf(rec.Data)
	if ending.Next != "" {
		return statusReplaced, ending.Next, ending.Reason
	}
	return statusEnded, "", ending.Reason
}

// setStatus sets the status according to rec, which may be nil, and the successor and the reason
// if rec is a tombstone.
func (st *stored) setStatus(rec *Record) {
	st.status, st.successor, st.reason = statusOf(rec)
}
