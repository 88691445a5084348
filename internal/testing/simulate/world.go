// Package simulate runs browsers, thieves and operators against several processes over one store,
// in virtual time. One seed determines all events: the order in which requests continue, the
// behaviour of the store and the network, and the steps of each actor. The responses are compared
// with the promises of package session.
package simulate

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/coatcheck/session"
)

// A Library is what the simulator needs of package session in addition to its exported names.
type Library struct {
	// Simulate sets the hooks by which the simulator controls the package: see simulated.go there.
	Simulate func(random func(n int64) int64, resumed func(ctx context.Context, m *session.Manager, what, id string))

	// Peek returns a live record, or nil. For a full store it does not count as a use.
	Peek func(store *session.MemoryStore, id string) *session.Record

	// SetBack makes the times of all records later by d, and transforms their data by shift.
	SetBack func(store *session.MemoryStore, d time.Duration, shift func(data []byte) []byte)
}

// A Result describes a run.
type Result struct {
	Plan       Plan
	Violations []string
	History    []string
	Requests   int
	Sent       map[int][]Sent // requests of each browser, by its index in Plan.Actors
	Counts     map[string]int // number of events of each kind
	Pairs      map[string]int // number of overlaps of each pair: see Pairs
}

// world is one run.
type world struct {
	*scheduler
	library   Library
	plan      Plan
	store     *session.MemoryStore
	processes []*process
	managers  []*session.Manager // Managers of all processes, including dead ones
	browsers  []*browser
	truth     *truth
	began     time.Time
	history   []string
	exchanges int
	busy      int // requests and operator calls in progress, which have records in memory
	secrets   int // current step of the rotation of secrets
	counts    map[string]int
	coverage  coverage
	sent      map[int][]Sent
	applied   time.Time // time of the last store call
}

// Run executes a plan. It must be called in a bubble of testing/synctest.
func Run(plan Plan, library Library) *Result {
	w := &world{
		scheduler: newScheduler(plan.Seed), library: library, plan: plan,
		store: session.NewMemoryStore(&session.MemoryOptions{MaxBytes: plan.MaxBytes}),
		began: time.Now(), counts: map[string]int{}, sent: map[int][]Sent{},
	}
	w.truth = newTruth(w)
	w.scheduler.complete = w.complete
	library.Simulate(w.rng.Int64N, w.resumed)
	defer library.Simulate(nil, nil)
	for i := range plan.Processes {
		p := &process{w: w, n: i, ahead: plan.Ahead[i], limits: plan.limits()}
		p.start()
		w.processes = append(w.processes, p)
	}
	for i, a := range plan.Actors {
		switch a.Kind {
		case Browser:
			b := newBrowser(w, i, a)
			w.browsers = append(w.browsers, b)
			w.start(func(task int) { b.live(task) })
		case Thief:
			w.start(func(task int) { w.steal(task, i, a) })
		case Operator:
			w.start(func(task int) { w.operate(task, a) })
		case Deployer:
			w.start(func(task int) { w.deployAll(task, a) })
		case Crawler:
			w.start(func(task int) { w.crawl(task, i, a) })
		case Clock:
			w.start(func(task int) { w.setClocks(task, a) })
		}
	}
	if plan.Faults&Deaths != 0 {
		w.start(w.kill)
	}
	w.run()
	w.truth.finish()
	return &Result{Plan: plan, Violations: w.truth.violations, History: w.history, Requests: w.exchanges, Sent: w.sent, Counts: w.counts, Pairs: w.coverage.pairs}
}

// resumed is called by package session when a goroutine continues after a wait. A goroutine of a
// Manager has no request; m identifies its process.
func (w *world) resumed(ctx context.Context, m *session.Manager, what, id string) {
	at := placeOf(ctx, 0, "resumed "+what, id)
	at.manager = m
	w.park(at)
}

// complete implements scheduler.complete.
func (w *world) complete(at *place) {
	if at.manager != nil {
		at.process = slices.Index(w.managers, at.manager)
	}
	at.session = w.truth.number(at.id)
}

// start creates the Manager of the process.
func (p *process) start() {
	m, err := session.New(&session.Options{
		Store:       p,
		Secrets:     secretsOf(p.w.secrets),
		Lifetime:    p.limits.lifetime,
		IdleTimeout: p.limits.idle,
		RenewAfter:  p.w.plan.RenewAfter,
		MaxPerUser:  p.w.plan.MaxPerUser,
		MaxDataSize: p.limits.maxData,
		DeviceBound: p.w.plan.DeviceBound,
		OnEvent:     p.w.event,
		Logger:      slog.New(log{p}),
	})
	if err != nil {
		panic(err)
	}
	p.manager = m
	p.w.managers = append(p.w.managers, m)
}

// A log is the slog.Handler of a process. It counts the lines that a promise limits.
type log struct{ p *process }

func (l log) Enabled(context.Context, slog.Level) bool { return true }

func (l log) Handle(ctx context.Context, r slog.Record) error {
	switch {
	case strings.Contains(r.Message, "after the handler has returned"):
		l.p.lateLogged++
	case strings.Contains(r.Message, "panicked"):
		l.p.w.truth.violation(exchangeOf(ctx), "no panic", "logged: %s", r.Message)
	}
	return nil
}

func (l log) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l log) WithGroup(string) slog.Handler      { return l }

// kill ends a process at random times, and starts another one in its place at once.
func (w *world) kill(task int) {
	for range 1 + w.rng.IntN(3) {
		w.sleep(task, w.someTime(time.Hour))
		w.restart(w.rng.IntN(len(w.processes)))
	}
}

// restart ends a process, and starts another one in its place.
func (w *world) restart(i int) {
	old := w.processes[i]
	w.log(nil, "process %d dies, and a new one takes its place at once", i)
	w.truth.count("fault: a process dies")
	w.truth.disturbed()
	old.isDead = true
	w.processes[i] = &process{w: w, n: i, ahead: old.ahead, limits: old.limits}
	w.processes[i].start()
}

// someTime returns a random time of less than most, of any order of magnitude.
func (w *world) someTime(most time.Duration) time.Duration { return someTime(w.rng, most) }

func someTime(rng *rand.Rand, most time.Duration) time.Duration {
	d := most >> rng.IntN(16)
	return time.Duration(rng.Int64N(int64(d)))
}

// log adds a line to the history. x is the request of the line, or nil.
func (w *world) log(x *exchange, format string, args ...any) {
	line := fmt.Sprintf("%-12v ", time.Since(w.began).Round(time.Millisecond))
	if x != nil {
		line += fmt.Sprintf("request %d: ", x.n)
	}
	w.history = append(w.history, line+fmt.Sprintf(format, args...))
}
