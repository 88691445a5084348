package otel_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
	sessionotel "github.com/coatcheck/session/otel"
	"github.com/coatcheck/session/sessiontest"
	"github.com/coatcheck/session/storetest"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// witness collects what OpenTelemetry receives.
type witness struct {
	t         testing.TB
	reader    *metric.ManualReader
	spans     *tracetest.SpanRecorder
	tracer    trace.TracerProvider
	telemetry *sessionotel.Telemetry
}

func newWitness(t testing.TB) *witness {
	t.Helper()
	w := &witness{t: t, reader: metric.NewManualReader(), spans: tracetest.NewSpanRecorder()}
	w.tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(w.spans))
	var err error
	w.telemetry, err = sessionotel.New(&sessionotel.Options{
		MeterProvider:  metric.NewMeterProvider(metric.WithReader(w.reader)),
		TracerProvider: w.tracer,
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// metrics returns the counts by "name{attributes}".
func (w *witness) metrics() map[string]int {
	w.t.Helper()
	var all metricdata.ResourceMetrics
	if err := w.reader.Collect(context.Background(), &all); err != nil {
		w.t.Fatal(err)
	}
	got := map[string]int{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					got[say(m.Name+" "+m.Unit, p.Attributes)] = int(p.Value)
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					got[say(m.Name+" "+m.Unit, p.Attributes)] = int(p.Count)
				}
			}
		}
	}
	return got
}

func say(name string, set attribute.Set) string {
	for _, kv := range set.ToSlice() {
		name += fmt.Sprintf(" %s=%s", kv.Key, kv.Value.AsString())
	}
	return name
}

// TestEvents checks that every kind of event has a counter of its own and is added to the
// current span.
func TestEvents(t *testing.T) {
	w := newWitness(t)
	kinds := []session.EventKind{
		session.EventCreated, session.EventLoggedIn, session.EventLoggedOut, session.EventRenewed, session.EventRevoked,
		session.EventRejected, session.EventReplayed, session.EventConflict, session.EventDropped, session.EventStoreFailed,
		session.EventDeviceBound, session.EventUnproven,
	}
	ctx, span := w.tracer.Tracer("test").Start(t.Context(), "request")
	for i, kind := range kinds {
		for range i + 1 {
			w.telemetry.OnEvent(ctx, session.Event{Kind: kind, ID: "the-id", User: "the-user", Err: errors.New("the-error")})
		}
	}
	span.End()
	got := w.metrics()
	for i, kind := range kinds {
		if n := got["session.events {event} session.event.kind="+string(kind)]; n != i+1 {
			t.Errorf("%s: %d, want %d", kind, n, i+1)
		}
	}
	if len(got) != len(kinds) {
		t.Errorf("%v", got)
	}
	if n := len(w.spans.Ended()[0].Events()); n != 78 || w.spans.Ended()[0].Events()[0].Name != "session.created" {
		t.Errorf("%d events of the span", n)
	}
}

// fixed is a store whose methods all return err.
type fixed struct{ err error }

func (f fixed) Load(context.Context, string) (*session.Record, error)     { return nil, f.err }
func (f fixed) Create(context.Context, *session.Record) error             { return f.err }
func (f fixed) Save(context.Context, *session.Record, uint64) error       { return f.err }
func (f fixed) Touch(context.Context, string, time.Time, time.Time) error { return f.err }
func (f fixed) Delete(context.Context, string) error                      { return f.err }
func (f fixed) List(context.Context, string) ([]*session.Record, error)   { return nil, f.err }

// TestStoreCalls checks that every method with every outcome has a histogram and a span of its
// own, and that only failures are errors.
func TestStoreCalls(t *testing.T) {
	for _, c := range []struct {
		err     error
		outcome string
		failed  bool
	}{
		{nil, "ok", false},
		{session.ErrNotFound, "not_found", false},
		{fmt.Errorf("x: %w", session.ErrConflict), "conflict", false},
		{session.ErrExists, "exists", false},
		{fmt.Errorf("%w: %w", session.ErrIndeterminate, context.DeadlineExceeded), "indeterminate", true},
		{context.DeadlineExceeded, "timeout", true},
		{context.Canceled, "canceled", true},
		{errors.New("connection refused"), "_OTHER", true},
	} {
		w := newWitness(t)
		s := w.telemetry.Store(fixed{c.err})
		ctx, parent := w.tracer.Tracer("test").Start(t.Context(), "request")
		r := &session.Record{ID: "the-id", User: "the-user", Data: []byte("the-data")}
		_, load := s.Load(ctx, "the-id")
		_, list := s.List(ctx, "the-user")
		for operation, err := range map[string]error{
			"load": load, "list": list, "create": s.Create(ctx, r), "save": s.Save(ctx, r, 1),
			"touch": s.Touch(ctx, "the-id", time.Now(), time.Now()), "delete": s.Delete(ctx, "the-id"),
		} {
			if err != c.err {
				t.Errorf("%s returned %v, want %v", operation, err, c.err)
			}
			want := "session.store.duration s"
			if c.failed {
				want += " error.type=" + c.outcome
			}
			want += " session.store.operation=" + operation + " session.store.outcome=" + c.outcome
			if n := w.metrics()[want]; n != 1 {
				t.Errorf("%s: %d, of %v", want, n, w.metrics())
			}
		}
		if spans := w.spans.Ended(); len(spans) != 6 || len(w.metrics()) != 6 {
			t.Errorf("%d spans, %d histograms", len(spans), len(w.metrics()))
		}
		for _, span := range w.spans.Ended() {
			if span.Parent().SpanID() != parent.SpanContext().SpanID() || span.SpanKind() != trace.SpanKindClient ||
				!strings.HasPrefix(span.Name(), "session.store ") || (span.Status().Code == codes.Error) != c.failed {
				t.Errorf("%s: %v %v", span.Name(), span.Status(), span.SpanKind())
			}
		}
		parent.End()
	}
}

// TestNothingPrivateIsTold checks that OpenTelemetry receives no id, user, value or token.
func TestNothingPrivateIsTold(t *testing.T) {
	w := newWitness(t)
	inner := sessiontest.NewStore(nil)
	m, err := session.New(&session.Options{Store: w.telemetry.Store(inner), Secrets: [][]byte{[]byte("0123456789abcdef0123456789abcdef")}, OnEvent: w.telemetry.OnEvent})
	if err != nil {
		t.Fatal(err)
	}
	value := session.NewKey[string]("key")
	var private []string
	h := m.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		ctx, span := w.tracer.Tracer("test").Start(r.Context(), "handler")
		defer span.End()
		s := session.From(ctx)
		s.Login("the-user")
		value.Set(s, "the-value")
		if err := s.Save(ctx); err == nil {
			private = append(private, s.ID())
		}
	}))
	b := sessiontest.NewBrowser(t, h)
	for range 2 {
		private = append(private, b.Get("/").Header.Get("Set-Cookie")[len("__Host-Http-session="):][:100])
	}
	inner.Fail(fmt.Errorf("the-user the-value %s", private[0]))
	b.Get("/")
	inner.Fail(nil)
	if err := m.RevokeAll(t.Context(), "the-user"); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(w.metrics())
	for _, span := range w.spans.Ended() {
		text += fmt.Sprint(span.Name(), span.Attributes(), span.Events(), span.Status())
	}
	for _, secret := range append(private, "the-user", "the-value") {
		if secret == "" || strings.Contains(text, secret) {
			t.Errorf("the output contains %q: %s", secret, text)
		}
	}
	if !strings.Contains(text, "logged_in") || !strings.Contains(text, "_OTHER") {
		t.Errorf("the output is too short: %s", text)
	}
}

// TestStoreKeepsItsContract runs the contract of stores on an instrumented store.
func TestStoreKeepsItsContract(t *testing.T) {
	w := newWitness(t)
	open := func(t *testing.T) session.Store { return w.telemetry.Store(session.NewMemoryStore(nil)) }
	storetest.Run(t, open)
	storetest.RunManagers(t, open)
}

// TestPanic checks that a panic of the store is counted and not recovered.
func TestPanic(t *testing.T) {
	w := newWitness(t)
	defer func() {
		if recover() == nil || w.metrics()["session.store.duration s error.type=panic session.store.operation=load session.store.outcome=panic"] != 1 {
			t.Errorf("counted: %v", w.metrics())
		}
	}()
	w.telemetry.Store(nil).Load(t.Context(), "id")
}

// TestDefaults uses the global providers, which do nothing by default.
func TestDefaults(t *testing.T) {
	telemetry, err := sessionotel.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	telemetry.OnEvent(t.Context(), session.Event{Kind: session.EventCreated})
	if _, err := telemetry.Store(session.NewMemoryStore(nil)).Load(t.Context(), "id"); !errors.Is(err, session.ErrNotFound) {
		t.Error(err)
	}
}

// BenchmarkLoad loads from a MemoryStore with and without instrumentation.
func BenchmarkLoad(b *testing.B) {
	w := newWitness(b)
	inner := session.NewMemoryStore(nil)
	now := time.Now().Truncate(time.Millisecond)
	if err := inner.Create(b.Context(), &session.Record{ID: "id", Data: []byte("{}"), Created: now, LastSeen: now, Deadline: now.Add(time.Hour), Expires: now.Add(time.Hour), Version: 1}); err != nil {
		b.Fatal(err)
	}
	telemetry, err := sessionotel.New(nil)
	if err != nil {
		b.Fatal(err)
	}
	for name, s := range map[string]session.Store{"bare": inner, "no provider": telemetry.Store(inner), "metrics and traces": w.telemetry.Store(inner)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Load(b.Context(), "id"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
