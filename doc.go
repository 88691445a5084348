// Package session gives net/http handlers their sessions.
package session
