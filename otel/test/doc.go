// Package test tests package otel, in a module of its own: that of otel requires
// OpenTelemetry's API, and not the SDK, which its users choose.
package test
