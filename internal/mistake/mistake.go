// Package mistake marks errors of a store that are mistakes of the program, not failures of the
// store.
package mistake

import "fmt"

// Error is returned by a store that cannot keep a record because of its contents, which the
// program has set. The Manager reports it as a mistake of the program, not as ErrStore.
type Error struct{ reason string }

// New returns an [Error] whose text is formatted as by package fmt.
func New(format string, args ...any) error { return &Error{fmt.Sprintf(format, args...)} }

func (e *Error) Error() string { return e.reason }
