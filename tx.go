package session

import (
	"context"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/storectx"
)

// A tx is a transaction: it works on a copy of the session's state, and only a tx calls the
// store. The copy is published when the transaction is over. Readers see the state of before
// until then, and never wait for a commit. If the store or the program panics, the state of
// before stays published.
//
// The load is a transaction of its own, which Session.loading serializes. Session.mu
// serializes all others.
type tx struct {
	s *Session
	m *Manager
	c *storectx.Context // of all calls of the store; nil before the first
	state
	own       storectx.Context // what c points to, and
	room      [1]body.Change   // what pending.changes is at first: so a tx is one allocation
	events    []Event          // to be delivered after the transaction
	hasNewKey bool             // the transaction has given a stored session another key
}

// transact calls f with a transaction, and publishes its state. The session is loaded.
func (s *Session) transact(f func(t *tx) error) error {
	s.use()
	s.mu.Lock()
	return s.transactLocked(f)
}

// transactWithin is transact for a call that the program has given a context. The calls of
// the store have its values and deadline, not its cancellation.
func (s *Session) transactWithin(ctx context.Context, f func(t *tx) error) error {
	s.useWithin(ctx)
	s.mu.Lock()
	return s.transactLocked(func(t *tx) error {
		t.within(ctx)
		return f(t)
	})
}

// transactLocked is transact while mu is held, which it unlocks.
func (s *Session) transactLocked(f func(t *tx) error) error {
	t := &tx{s: s, m: s.m, state: *s.state.Load()}
	defer t.deliver()
	defer s.mu.Unlock()
	defer t.release()
	err := f(t)
	s.state.Store(&t.state)
	t.rekey()
	return err
}

// within gives the calls of the store the values and the deadline of ctx.
func (t *tx) within(ctx context.Context) {
	t.c = &t.own
	t.c.BeginWithin(ctx, t.m.timeout)
}

// context returns the context of all calls of the store in the transaction.
func (t *tx) context() *storectx.Context {
	if t.c == nil {
		t.c = &t.own
		t.c.Begin(t.s.ctx, t.m.timeout)
	}
	return t.c
}

// renewContext gives the calls of the store that follow a whole StoreTimeout, because the
// transaction had to wait.
func (t *tx) renewContext() {
	t.release()
	t.c = storectx.New(t.s.ctx, t.m.timeout)
}

func (t *tx) release() {
	if t.c != nil {
		t.c.Release()
	}
}

// phase returns how far the response is.
func (t *tx) phase() phase { return t.s.phase.load() }

// plan decides what a commit does next.
func (t *tx) plan() action { return t.state.plan(t.phase(), t.pending.now()) }

// note keeps an event for the end of the transaction.
func (t *tx) note(kind EventKind, rec *Record, err error) {
	if t.m.onEvent == nil {
		return
	}
	e := Event{Kind: kind, Err: err}
	if rec != nil {
		e.ID, e.User = rec.ID, rec.User
	}
	t.events = append(t.events, e)
}

// deliver calls OnEvent.
func (t *tx) deliver() {
	for _, e := range t.events {
		t.m.onEvent(t.s.ctx, e)
	}
}

// rekey lets Done wait on with the key that this transaction has made. It is called when the
// key is stored, and once more when it is published, for a Done that came between.
func (t *tx) rekey() {
	if t.hasNewKey && t.stored.status == statusLive {
		t.m.watch.Rekey(t.s.watcher.Load(), t.stored.ref.Key, body.ExplicitKey(t.stored.rec.Data))
	}
}
