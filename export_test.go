package session

import "context"

// Simulate lets the simulator decide what is random and in which order goroutines go on.
func Simulate(random func(n int64) int64, resumed func(ctx context.Context, m *Manager, what, id string)) {
	simulated.random, simulated.resumed = random, resumed
}
