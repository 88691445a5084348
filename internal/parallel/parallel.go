// Package parallel runs a function for a number of things, several of them concurrently.
package parallel

import "sync"

// Do calls f for each number below n, up to most of them concurrently. After the first
// error it begins no further call, and returns that error. A panic of f is passed to the caller.
func Do(n, most int, f func(i int) error) error {
	if n == 1 || most == 1 {
		for i := range n {
			if err := f(i); err != nil {
				return err
			}
		}
		return nil
	}
	var (
		all      sync.WaitGroup
		mu       sync.Mutex // guards the following
		next     int
		err      error
		panicked any
	)
	for range min(n, most) {
		all.Go(func() {
			defer func() {
				if v := recover(); v != nil {
					mu.Lock()
					defer mu.Unlock()
					panicked = v
				}
			}()
			for {
				mu.Lock()
				i := next
				next++
				stop := i >= n || err != nil || panicked != nil
				mu.Unlock()
				if stop {
					return
				}
				if failed := f(i); failed != nil {
					mu.Lock()
					err = failed
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	if panicked != nil {
		panic(panicked)
	}
	return err
}
