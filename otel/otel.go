// Package otel reports the events of sessions and the duration of store calls to OpenTelemetry:
//
//	telemetry, err := sessionotel.New(nil) // import sessionotel "github.com/coatcheck/session/otel"
//	sessions, err := session.New(&session.Options{
//		Store:   telemetry.Store(store),
//		OnEvent: telemetry.OnEvent,
//		// ...
//	})
//
// Metrics:
//
//	session.events          {event}  counter by session.event.kind: created, logged_in, …
//	session.store.duration  s        histogram by session.store.operation and session.store.outcome
//
// The histogram also has error.type for calls that failed. Each call is also a client span, for
// example "session.store load", and each event is added to the current span.
//
// The names are in a namespace of their own. The semantic conventions have no names for
// sessions on a server: their session.id is the visit of a user. Their names for databases
// (db.client.operation.duration) belong to the driver under the store: if the driver is
// instrumented too, a call would be counted twice.
//
// No attribute, span or event contains an id, a user or a value of a session.
package otel

import (
	"context"
	"errors"

	"github.com/coatcheck/session"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

const scope = "github.com/coatcheck/session/otel"

// Options are the providers of OpenTelemetry to use. A nil field means the global provider at
// the time of [New].
type Options struct {
	MeterProvider  metric.MeterProvider
	TracerProvider trace.TracerProvider
}

// Telemetry reports to OpenTelemetry. Any number of goroutines and Managers may use it
// concurrently.
type Telemetry struct {
	events   metric.Int64Counter
	duration metric.Float64Histogram
	tracer   trace.Tracer
}

// New returns a Telemetry. A nil opts means all defaults.
func New(opts *Options) (*Telemetry, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.MeterProvider == nil {
		o.MeterProvider = otel.GetMeterProvider()
	}
	if o.TracerProvider == nil {
		o.TracerProvider = otel.GetTracerProvider()
	}
	meter := o.MeterProvider.Meter(scope)
	events, err1 := meter.Int64Counter("session.events",
		metric.WithUnit("{event}"), metric.WithDescription("Events of sessions."))
	duration, err2 := meter.Float64Histogram("session.store.duration",
		metric.WithUnit("s"), metric.WithDescription("Duration of session store calls."),
		metric.WithExplicitBucketBoundaries(0.00001, 0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5))
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return &Telemetry{events, duration, o.TracerProvider.Tracer(scope)}, nil
}

// OnEvent counts e. Use it as [session.Options].OnEvent.
func (t *Telemetry) OnEvent(ctx context.Context, e session.Event) {
	kind := attribute.String("session.event.kind", string(e.Kind))
	t.events.Add(ctx, 1, metric.WithAttributes(kind))
	trace.SpanFromContext(ctx).AddEvent("session."+string(e.Kind), trace.WithAttributes(kind))
}

// Store returns a store that calls inner and reports each call.
func (t *Telemetry) Store(inner session.Store) session.Store { return &store{t, inner} }

type store struct {
	*Telemetry
	inner session.Store
}

// outcome returns the name of a call's outcome, and whether the call failed. ErrNotFound,
// ErrConflict and ErrExists are results, not failures.
func outcome(err error) (name string, failed bool) {
	switch {
	case err == nil:
		return "ok", false
	case errors.Is(err, session.ErrIndeterminate):
		return "indeterminate", true
	case errors.Is(err, session.ErrNotFound):
		return "not_found", false
	case errors.Is(err, session.ErrConflict):
		return "conflict", false
	case errors.Is(err, session.ErrExists):
		return "exists", false
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout", true
	case errors.Is(err, context.Canceled):
		return "canceled", true
	}
	return "_OTHER", true // the spelling of the semantic conventions
}
