package gorillastore

import "github.com/gorilla/sessions"

// Kept returns how many snapshots a Store keeps.
func Kept(s sessions.Store) (n int) {
	s.(*store).snapshots.Range(func(any, any) bool { n++; return true })
	return n
}
