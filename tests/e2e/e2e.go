// Package e2e tests the library with real browsers and real proxies. It contains only tests;
// Chromium, Firefox, WebKitGTK and nginx are those of Debian.
//
// engine_test.go defines what a test can do with a browser of any engine; chrome_test.go,
// firefox_test.go and webkit_test.go drive one engine each. A test that needs a browser which
// is not installed is skipped, and fails if CI=true.
package e2e
