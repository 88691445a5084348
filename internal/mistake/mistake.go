// Package mistake marks errors of a store that are not failures of it.
package mistake

import "fmt"

// An Error is what a store returns if it cannot keep a record because of what the program
// has put into it. The Manager passes it on as the program's mistake, not as a failure of
// the store.
type Error struct{ reason string }

// New returns an Error with a reason in the format of package fmt.
func New(format string, args ...any) error { return &Error{fmt.Sprintf(format, args...)} }

func (e *Error) Error() string { return e.reason }
