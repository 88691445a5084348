package faults_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/coatcheck/session"
)

const (
	clients = 8
	slots   = 5 // ids in use at any time
)

// board assigns the ids in use. With again, an id that was deleted is created again. Without,
// its slot gets a new id, as with a Manager: an id is then not created after its Delete was
// called.
type board struct {
	again bool
	mu    sync.Mutex
	slots [slots]struct{ generation, creating int }
}

func name(slot, generation int) string { return fmt.Sprintf("id-%d-%d", slot, generation) }

// any returns the id of the slot, or occasionally the previous id, which must stay deleted.
func (b *board) any(rng *rand.Rand, slot int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.slots[slot].generation
	if g > 0 && rng.IntN(5) == 0 {
		g--
	}
	return name(slot, g)
}

func (b *board) create(slot int) (id string, done func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &b.slots[slot]
	s.creating++
	return name(slot, s.generation), func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		s.creating--
	}
}

// retire returns an id to delete, unless a create of it is in progress.
func (b *board) retire(slot int) (id string, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &b.slots[slot]
	id = name(slot, s.generation)
	if !b.again {
		if s.creating > 0 {
			return "", false
		}
		s.generation++
	}
	return id, true
}

// client calls a store, one call after the other, and records the results.
type client struct {
	number  int
	store   session.Store
	board   *board
	rng     *rand.Rand
	start   time.Time
	seen    map[string]uint64 // by id: the last version that was read, or written with an unknown outcome
	history []call
	broken  []string // results that are wrong without reference to other calls
}

func (c *client) run(isOver func() bool) {
	for !isOver() {
		c.step()
		pause := 4 * time.Millisecond
		if n := len(c.history); n > 0 && c.history[n-1].outcome == failed {
			pause = 40 * time.Millisecond // connections to a server that is down fail quickly
		}
		time.Sleep(time.Duration(c.rng.Int64N(int64(pause))))
	}
}

func (c *client) step() {
	slot := c.rng.IntN(slots)
	id := c.board.any(c.rng, slot)
	timeout := time.Duration(100+c.rng.IntN(700)) * time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	switch n := c.rng.IntN(100); {
	case n < 35:
		c.load(ctx, id)
	case n < 72:
		if c.rng.IntN(3) > 0 {
			c.load(ctx, id) // as a Manager does, so that the version is mostly current
		}
		old, known := c.seen[id]
		if !known || c.rng.IntN(20) == 0 {
			old = c.version() // a version that was never written
		}
		r := c.record(id)
		if c.do(call{method: "save", id: id, old: old, new: r.Version}, func() error { return c.store.Save(ctx, r, old) }) {
			c.seen[id] = r.Version
		}
	case n < 84:
		id, done := c.board.create(slot)
		defer done()
		r := c.record(id)
		if c.do(call{method: "create", id: id, new: r.Version}, func() error { return c.store.Create(ctx, r) }) {
			c.seen[id] = r.Version
		}
	case n < 98:
		now := time.Now()
		c.do(call{method: "touch", id: id}, func() error { return c.store.Touch(ctx, id, now, now.Add(13*time.Hour)) })
	default:
		if id, ok := c.board.retire(slot); ok {
			c.do(call{method: "delete", id: id}, func() error { return c.store.Delete(ctx, id) })
		}
	}
}

// load loads a record and checks that its data belongs to its version.
func (c *client) load(ctx context.Context, id string) {
	k := call{method: "load", id: id, client: c.number, from: time.Since(c.start)}
	r, err := c.store.Load(ctx, id)
	k.to, k.outcome, k.err = time.Since(c.start), outcomeOf(err), fmt.Sprint(err)
	if err == nil {
		k.version = r.Version
		c.seen[id] = r.Version
		if r.ID != id || string(r.Data) != data(r.Version) || r.User != owner(id) {
			c.broken = append(c.broken, fmt.Sprintf("Load(%s) returned %+v", id, r))
		}
	}
	c.history = append(c.history, k)
}

// do makes a call, and reports whether it may have been applied.
func (c *client) do(k call, f func() error) bool {
	k.client, k.from = c.number, time.Since(c.start)
	err := f()
	k.to, k.outcome, k.err = time.Since(c.start), outcomeOf(err), fmt.Sprint(err)
	c.history = append(c.history, k)
	if k.outcome == unknown && (errors.Is(err, session.ErrConflict) || errors.Is(err, session.ErrNotFound) || errors.Is(err, session.ErrExists)) {
		c.broken = append(c.broken, fmt.Sprintf("%s answered two things at once: %v", k.method, err))
	}
	return k.outcome == ok || k.outcome == unknown
}

func (c *client) version() uint64 { return c.rng.Uint64()>>1 | 1 }

// record returns a new version of the session with this id.
func (c *client) record(id string) *session.Record {
	now := time.Now().Truncate(time.Millisecond)
	v := c.version()
	return &session.Record{
		ID: id, User: owner(id), Version: v, Data: []byte(data(v)),
		Created: now, LastSeen: now, Expires: now.Add(12 * time.Hour), Deadline: c.start.Truncate(time.Millisecond).Add(24 * time.Hour),
	}
}

func data(version uint64) string { return fmt.Sprintf(`{"is":"%x"}`, version) }

// owner returns the user of an id, which is "" for some ids, so that anonymous sessions are
// included.
func owner(id string) string {
	if id[3] == '0' || id[3] == '1' {
		return ""
	}
	return "user of " + id[:4]
}
