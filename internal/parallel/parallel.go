// Package parallel runs a function for a number of things, several of them at once.
package parallel

import (
	"errors"
	"sync"
)

// Do calls f for each number below n, up to most of them concurrently. If calls fail, the others
// are still made, and Do returns the errors joined. After most failures in a row Do begins no
// further call, because whatever f needs is down. A panic of f is passed to the caller.
func Do(n, most int, f func(i int) error) error {
	var (
		all      sync.WaitGroup
		mu       sync.Mutex // guards the following
		next     int
		errs     []error
		inARow   int // failures since the last success
		panicked any
	)
	work := func() {
		for {
			mu.Lock()
			i := next
			next++
			stop := i >= n || inARow >= most || panicked != nil
			mu.Unlock()
			if stop {
				return
			}
			err := f(i)
			mu.Lock()
			if inARow++; err == nil {
				inARow = 0
			}
			errs = append(errs, err)
			mu.Unlock()
		}
	}
	if n == 1 || most == 1 {
		work() // without a goroutine: a simulator runs one at a time
		return errors.Join(errs...)
	}
	for range min(n, most) {
		all.Go(func() {
			defer func() {
				if v := recover(); v != nil {
					mu.Lock()
					defer mu.Unlock()
					panicked = v
				}
			}()
			work()
		})
	}
	all.Wait()
	if panicked != nil {
		panic(panicked)
	}
	return errors.Join(errs...)
}
