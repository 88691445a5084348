// Package test holds the tests of migrate, and nothing else. It is a module of its own,
// so that migrate/go.mod requires only what migrate imports: the gin, Redis and
// PostgreSQL packages that the tests need would otherwise upgrade those of its users.
package test
