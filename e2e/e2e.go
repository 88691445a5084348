// Package e2e tries the library with what its users have: real browsers, in front
// of real proxies. It is all tests; Chromium, Firefox, WebKitGTK and nginx are Debian's.
//
// engine_test.go says what a browser of any engine can do; chrome_test.go,
// firefox_test.go and webkit_test.go drive one. A test that needs a browser that is
// not installed is skipped by name, and fails where CI=true.
package e2e
