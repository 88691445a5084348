package simulate

import (
	"errors"
	"slices"
	"time"

	"github.com/coatcheck/session"
)

// A room models a MemoryStore with MemoryOptions.MaxBytes: which records it must keep, and which
// ones it may evict.
type room struct {
	t    *truth
	max  int64   // limit in bytes; 0: none
	kept []*kept // records in the order of their creation
}

// kept is one record.
type kept struct {
	r      *session.Record
	used   time.Time // time of the last Create, Save or Load
	isBack bool      // loaded since its creation, or once of a logged-in user
}

// Memory of a record in addition to its id, user and data: MemoryOptions documents about 300 bytes.
const (
	leastOverhead = 200
	mostOverhead  = 300
)

func least(r *session.Record) int64 {
	return int64(leastOverhead + len(r.ID) + len(r.User) + len(r.Data))
}

func most(r *session.Record) int64 {
	return int64(mostOverhead + len(r.ID) + 2*len(r.User) + len(r.Data))
}

// isFull reports whether a Create or Save was refused for lack of room.
func isFull(err error) bool {
	for _, answer := range []error{session.ErrNotFound, session.ErrConflict, session.ErrExists} {
		if errors.Is(err, answer) {
			return false
		}
	}
	return err != nil
}

func (m *room) peek(id string) *session.Record { return m.t.w.library.Peek(m.t.w.store, id) }

func (m *room) find(id string) *kept {
	if i := slices.IndexFunc(m.kept, func(k *kept) bool { return k.r.ID == id }); i >= 0 {
		return m.kept[i]
	}
	return nil
}

// loaded notes that a record was loaded.
func (m *room) loaded(id string) {
	if k := m.find(id); k != nil {
		k.used, k.isBack = time.Now(), true
	}
}

// touched updates the times of a record.
func (m *room) touched(id string) {
	if k, r := m.find(id), m.peek(id); k != nil && r != nil {
		k.r = r
	}
}

func (m *room) deleted(id string) {
	m.kept = slices.DeleteFunc(m.kept, func(k *kept) bool { return k.r.ID == id })
}

// wrote judges a Create or Save of a record: which records it has evicted, and whether a refusal
// was justified.
func (m *room) wrote(x *exchange, r *session.Record, err error) {
	if m.max == 0 {
		return
	}
	var evicted []*kept
	there := m.kept[:0:0]
	for _, k := range m.kept {
		switch now := m.peek(k.r.ID); {
		case now != nil:
			there = append(there, k)
		case time.Now().Before(k.r.Expires):
			evicted = append(evicted, k)
		}
	}
	before := m.find(r.ID)
	m.kept = there
	if now := m.peek(r.ID); err == nil && now != nil {
		k := &kept{r: now, used: time.Now(), isBack: before != nil && (before.isBack || before.r.User != "")}
		if i := slices.Index(there, before); i >= 0 {
			there[i] = k
		} else {
			m.kept = append(there, k)
		}
	}
	m.judgeEvictions(x, r, evicted)
	if isFull(err) {
		m.judgeRefusal(x, r)
	}
	total := int64(0)
	for _, k := range m.kept {
		total += least(k.r)
	}
	if total > m.max {
		m.t.violation(x, "bounded memory", "the store has %d bytes, the limit is %d", total, m.max)
	}
}

// goesBefore reports whether an anonymous session is evicted before another one.
func (k *kept) goesBefore(o *kept) bool {
	if k.isBack != o.isBack {
		return o.isBack
	}
	return k.used.Before(o.used)
}

// judgeEvictions judges which records were evicted to make room for r.
func (m *room) judgeEvictions(x *exchange, r *session.Record, evicted []*kept) {
	t := m.t
	for _, k := range evicted {
		n, isLast := t.number(k.r.ID), true
		t.evicted(x, k)
		for _, o := range evicted {
			isLast = isLast && (o == k || o.goesBefore(k))
		}
		if k.r.User != "" {
			t.violation(x, "bounded memory", "session %d of %q was evicted", n, k.r.User)
		}
		for _, o := range m.kept {
			if o.r.ID != r.ID && o.r.User == "" && o.goesBefore(k) {
				t.violation(x, "bounded memory", "session %d was evicted before session %d", n, t.number(o.r.ID))
			}
		}
		if isLast && m.without(r)+most(r)+most(k.r) <= m.max {
			t.violation(x, "bounded memory", "session %d was evicted although there was room", n)
		}
	}
}

// judgeRefusal judges the refusal of r: there must be no room.
func (m *room) judgeRefusal(x *exchange, r *session.Record) {
	t := m.t
	t.count("fault: the store is full")
	if x != nil {
		x.isRefused = true
	}
	for _, k := range m.kept {
		if k.r.User == "" && most(r) <= m.max { // otherwise r may not fit into an empty store
			t.violation(x, "bounded memory", "a record was refused although session %d could be evicted", t.number(k.r.ID))
		}
	}
	if m.without(r)+most(r) <= m.max {
		t.violation(x, "bounded memory", "a record was refused although there was room")
	}
}

// without returns the maximum size of the other records.
func (m *room) without(r *session.Record) (total int64) {
	for _, k := range m.kept {
		if k.r.ID != r.ID {
			total += most(k.r)
		}
	}
	return total
}
