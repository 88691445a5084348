package otel

import (
	"context"
	"time"

	"github.com/coatcheck/session"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// call runs one call of the inner store in a span, and records its duration and outcome.
func (s *store) call(ctx context.Context, operation string, f func(ctx context.Context) error) {
	what := attribute.String("session.store.operation", operation)
	ctx, span := s.tracer.Start(ctx, "session.store "+operation,
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(what))
	defer span.End()
	began := time.Now()
	result, failed := "panic", true
	defer func() {
		all := []attribute.KeyValue{attribute.String("session.store.outcome", result)}
		if failed {
			all = append(all, attribute.String("error.type", result))
			span.SetStatus(codes.Error, result)
		}
		span.SetAttributes(all...)
		s.duration.Record(ctx, time.Since(began).Seconds(), metric.WithAttributes(append(all, what)...))
	}()
	result, failed = outcome(f(ctx))
}

// Load implements session.Store.
func (s *store) Load(ctx context.Context, id string) (r *session.Record, err error) {
	s.call(ctx, "load", func(ctx context.Context) error {
		r, err = s.inner.Load(ctx, id)
		return err
	})
	return r, err
}

// Create implements session.Store.
func (s *store) Create(ctx context.Context, r *session.Record) (err error) {
	s.call(ctx, "create", func(ctx context.Context) error {
		err = s.inner.Create(ctx, r)
		return err
	})
	return err
}

// Save implements session.Store.
func (s *store) Save(ctx context.Context, r *session.Record, old uint64) (err error) {
	s.call(ctx, "save", func(ctx context.Context) error {
		err = s.inner.Save(ctx, r, old)
		return err
	})
	return err
}

// Touch implements session.Store.
func (s *store) Touch(ctx context.Context, id string, seen, expires time.Time) (err error) {
	s.call(ctx, "touch", func(ctx context.Context) error {
		err = s.inner.Touch(ctx, id, seen, expires)
		return err
	})
	return err
}

// Delete implements session.Store.
func (s *store) Delete(ctx context.Context, id string) (err error) {
	s.call(ctx, "delete", func(ctx context.Context) error {
		err = s.inner.Delete(ctx, id)
		return err
	})
	return err
}

// List implements session.Store.
func (s *store) List(ctx context.Context, user string) (rs []*session.Record, err error) {
	s.call(ctx, "list", func(ctx context.Context) error {
		rs, err = s.inner.List(ctx, user)
		return err
	})
	return rs, err
}
