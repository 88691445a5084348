// Package batch is the interface between a session.Session and package gorillastore, which
// changes many values by one commit. A commit that fails takes back all of its changes.
package batch

import (
	"context"
	"errors"
)

// A Key is the context key of the [Session] of one Manager. The context is that of a request in
// Manager.Handler.
type Key struct{ Manager any }

// A Session is the session of one request. It refers weakly to the request: a Session that is
// kept does not keep the request in memory.
type Session interface {
	// Read loads the session and calls f for each value, in no order. name is not in JSON, raw is.
	// f may be nil, and must not keep raw. If the store has failed, Read returns the error and does not call f.
	Read(f func(name string, raw []byte)) (State, error)

	// Commit stores the changes, and all that is pending, before it returns. It takes the values
	// and the deadline of ctx, not its cancellation. A nil ctx means the context of the request.
	//
	// If Commit returns an error, nothing of c is pending afterwards, except that a logout that
	// failed stays pending. If a Login or a Renew comes after the first byte of the response,
	// nothing is stored.
	Commit(ctx context.Context, c Commit) (State, error)
}

// A State is what a request knows of its session.
type State struct {
	ID, User    string
	IsAmbiguous bool // the request carries two live sessions, and neither counts
}

// A Commit is a set of changes. They are made in the order of the fields.
type Commit struct {
	Logout  bool
	Login   string // the user; "": no Login
	Renew   bool
	Prefix  string // all values whose names begin with Prefix are removed, unless it is ""
	Changes []Change
}

// A Change is a change of one value.
type Change struct {
	Name  string                          // not in JSON
	Raw   []byte                          // the value after the change, in JSON; nil: none
	Merge func(in []byte) ([]byte, error) // computes the value from the one that the commit finds, in place of Raw; nil: Raw replaces any value
}

// ErrOver is returned by the methods of a Session whose request is no longer in memory.
var ErrOver = errors.New("session: the request of this session is over")
