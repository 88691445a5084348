// Package otel tells OpenTelemetry what happens to sessions, and what calls of their
// store take:
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
// and error.type where a call failed. Each call is a client span too, "session.store
// load" for example, and each event an event of the span that is current.
//
// The names are in a namespace of their own: the semantic conventions have none for
// sessions on a server (their session.id is a user's visit), and those for databases
// (db.client.operation.duration) belong to the driver under the store, which may be
// instrumented too: one call would be counted twice.
//
// No attribute, span or event ever holds an id, a user or a value of a session.
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

// Options say where to tell it. The zero value is OpenTelemetry's global providers,
// as they are when New is called.
type Options struct {
	MeterProvider  metric.MeterProvider
	TracerProvider trace.TracerProvider
}

// Telemetry tells OpenTelemetry. It may be used by any number of goroutines and
// Managers.
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
		metric.WithUnit("{event}"), metric.WithDescription("What happened to sessions."))
	duration, err2 := meter.Float64Histogram("session.store.duration",
		metric.WithUnit("s"), metric.WithDescription("What calls of the session store took."),
		metric.WithExplicitBucketBoundaries(0.00001, 0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5))
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return &Telemetry{events, duration, o.TracerProvider.Tracer(scope)}, nil
}

// OnEvent is for session.Options.OnEvent.
func (t *Telemetry) OnEvent(ctx context.Context, e session.Event) {
	kind := attribute.String("session.event.kind", string(e.Kind))
	t.events.Add(ctx, 1, metric.WithAttributes(kind))
	trace.SpanFromContext(ctx).AddEvent("session."+string(e.Kind), trace.WithAttributes(kind))
}

// Store returns a store that tells of each call of another.
func (t *Telemetry) Store(inner session.Store) session.Store { return &store{t, inner} }

type store struct {
	*Telemetry
	inner session.Store
}

// outcome says what a store answered, and whether the call failed: that nothing was
// found, or somebody was faster, is an answer.
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
	return "_OTHER", true // as the semantic conventions spell it
}
