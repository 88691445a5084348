// Package e2e tries the library with what its users have: real browsers, in front
// of real proxies. It is all tests; Chromium and nginx are Debian's.
package e2e
