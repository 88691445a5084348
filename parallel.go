package session

import "sync"

// maxParallel is how many sessions of a user are ended at once: with a pool of
// connections of the usual size, other requests find some free.
const maxParallel = 16

// inParallel calls f for every number below n, for several at once. It returns the
// first error, after which it begins no other; a panic of f is the caller's.
func inParallel(n int, f func(i int) error) error {
	if n == 1 {
		return f(0)
	}
	var (
		all      sync.WaitGroup
		mu       sync.Mutex // guards the rest
		next     int
		err      error
		panicked any
	)
	for range min(n, maxParallel) {
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
