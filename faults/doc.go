// Package faults holds tests only: it judges the stores while their servers
// are killed, stopped and cut off. It is a module of its own, so that no other
// one needs a history checker.
package faults
