// Package faults contains only tests: it checks the stores while their servers are killed,
// suspended and disconnected. It is a module of its own, so that no other module requires a
// history checker.
package faults
