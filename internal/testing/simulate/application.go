package simulate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/coatcheck/session"
)

// The keys of the application.
var (
	marks  = session.NewKey[[]int]("marks") // each mark was added by one request, and is never removed
	once   = session.NewKey[int]("once")    // a voucher, which one request may take
	grants = session.NewKey[int]("grants")  // a credential that may be used once
	name   = session.NewKey[string]("name")
)

// An op is one action of a handler.
type op struct {
	kind string // the action without its parameters
	name string // text in the history
	do   func(x *exchange, w http.ResponseWriter)
}

func names(ops []op) string {
	if len(ops) == 0 {
		return "only reads"
	}
	var s []string
	for _, o := range ops {
		s = append(s, o.name)
	}
	return strings.Join(s, ", ")
}

func (x *exchange) ctx() context.Context {
	return context.WithValue(context.Background(), taskKey{}, x)
}

// mark appends a number to a list.
func mark() op {
	return op{"marks", "adds a mark", func(x *exchange, _ http.ResponseWriter) {
		x.grows = true
		n := x.w.truth.next()
		marks.Update(x.s, func(all []int) []int { return append(all[:len(all):len(all)], n) })
		x.made = append(x.made, n)
		x.w.log(x, "adds mark %d", n)
	}}
}

func markNow() op {
	return op{"marks now", "adds a mark and stores it at once", func(x *exchange, _ http.ResponseWriter) {
		x.grows = true
		n := x.w.truth.next()
		_, err := marks.UpdateNow(x.ctx(), x.s, func(all []int) []int { return append(all[:len(all):len(all)], n) })
		x.w.truth.refused(x, err)
		if err == nil {
			x.made = append(x.made, n)
			x.w.log(x, "has added and stored mark %d", n)
			x.w.truth.expectMarks(x, []int{n})
		}
	}}
}

func set(size int) op {
	return op{"sets", fmt.Sprintf("sets a value of %d bytes", size), func(x *exchange, _ http.ResponseWriter) {
		x.grows = true
		name.Set(x.s, strings.Repeat("x", size))
	}}
}

func flash() op {
	return op{"flashes", "adds a flash and reads it", func(x *exchange, _ http.ResponseWriter) {
		x.grows = true
		x.s.AddFlash("", "hello")
		x.s.Flashes()
	}}
}

func login(user string) op {
	return op{"login", "logs in as " + user, func(x *exchange, _ http.ResponseWriter) {
		x.login, x.renewal, x.made = user, x.status == 0, nil
		if x.status == 0 {
			x.logsIn, x.endBy = user, time.Time{}
		}
		x.grows = true
		x.w.truth.logins[user] = append(x.w.truth.logins[user], loginCall{x, time.Now()})
		x.s.Login(user)
		grants.Set(x.s, x.w.truth.grant())
	}}
}

func logout() op {
	return op{"logout", "logs out", func(x *exchange, _ http.ResponseWriter) {
		x.logout, x.made, x.logsIn, x.logsOut, x.endBy = true, nil, "", x.s.ID(), time.Time{}
		x.s.Logout()
	}}
}

func renew() op {
	return op{"renew", "renews the key", func(x *exchange, _ http.ResponseWriter) { x.renewal = x.status == 0; x.s.Renew() }}
}

func remember(d time.Duration) op {
	return op{"remember", "remembers the user for " + d.String(), func(x *exchange, _ http.ResponseWriter) {
		x.renewal, x.remember = x.status == 0, d
		x.s.Remember(d)
	}}
}

// endBy limits the end of the session. A d of zero or less ends the session.
func endBy(d time.Duration) op {
	return op{"ends by", "ends the session in " + d.String() + " at the latest", func(x *exchange, _ http.ResponseWriter) {
		end := time.Now().Add(d).Truncate(time.Millisecond)
		if x.status == 0 && (x.endBy.IsZero() || end.Before(x.endBy)) {
			x.endBy = end
		}
		if d <= 0 {
			x.ends, x.made, x.logsIn = true, nil, ""
		}
		x.s.EndBy(end)
	}}
}

func revokeOthers() op {
	return op{"revokes", "revokes the user's other sessions", func(x *exchange, _ http.ResponseWriter) {
		x.revoke = true
		_ = x.p.manager.RevokeOthers(x.ctx(), x.s)
	}}
}

func save() op {
	return op{"saves", "saves", func(x *exchange, _ http.ResponseWriter) { _ = x.s.Save(x.ctx()) }}
}

// saveRefused sets a value that cannot be encoded, so that Save stores none of the changes of the
// request.
func saveRefused() op {
	return op{"is refused", "saves what cannot be encoded", func(x *exchange, _ http.ResponseWriter) {
		session.NewKey[func()]("refused").Set(x.s, func() {})
		_ = x.s.Save(x.ctx())
	}}
}

func reload() op {
	return op{"reloads", "reloads", func(x *exchange, _ http.ResponseWriter) {
		x.made, x.endBy, x.reloads = nil, time.Time{}, true
		if x.status == 0 {
			x.logsIn = ""
		}
		_ = x.s.Reload(x.ctx())
		x.w.truth.reloaded(x)
	}}
}

func sendHeader() op {
	return op{"sends its header", "sends the header", func(x *exchange, w http.ResponseWriter) { w.WriteHeader(http.StatusOK) }}
}

func works(d time.Duration) op {
	return op{"works", "works for " + d.String(), func(x *exchange, _ http.ResponseWriter) { x.w.sleep(x.task, d) }}
}

func panics() op {
	return op{"panics", "panics", func(x *exchange, _ http.ResponseWriter) {
		x.panics, x.made = true, nil
		panic(http.ErrAbortHandler)
	}}
}

func offer() op {
	return op{"offers", "offers a voucher", func(x *exchange, _ http.ResponseWriter) {
		x.grows = true
		once.Set(x.s, x.w.truth.next())
	}}
}

func take() op {
	return op{"takes", "takes the voucher", func(x *exchange, _ http.ResponseWriter) {
		if v, ok, err := once.Take(x.ctx(), x.s); ok && err == nil {
			x.w.log(x, "has taken voucher %d", v)
			x.w.truth.taken(x, v)
		}
	}}
}

// refresh exchanges a credential for a new one at an issuer that accepts each credential once. The
// issuer takes d, and the request waits at most within. With reloads, the request reloads the
// session in the meantime.
func refresh(d, within time.Duration, reloads bool) op {
	name := "refreshes the credential"
	if within > 0 {
		name += " within " + within.String()
	}
	return op{"refreshes", name, func(x *exchange, _ http.ResponseWriter) {
		t := x.w.truth
		if x.s.User() == "" || grants.Get(x.s) == 0 {
			return
		}
		ctx, failures, lease := x.ctx(), x.failures, t.leaseOf(x)
		x.hasRefreshed, x.grows = false, true
		if within > 0 {
			c, cancel := context.WithTimeout(ctx, within)
			defer cancel()
			ctx = c
		}
		began := time.Now()
		_, err := grants.Refresh(ctx, x.s, t.isFresh, func(ctx context.Context, n int) (int, error) {
			x.w.log(x, "sends credential %d to the issuer", n)
			end, _ := ctx.Deadline()
			t.uses(x, n, end)
			x.w.sleep(x.task, min(d, max(0, time.Until(end))))
			if err := ctx.Err(); err != nil || x.p.isDead {
				x.w.log(x, "gets no reply from the issuer in time")
				t.unused(x, n)
				return 0, fmt.Errorf("issuer: %w", context.DeadlineExceeded)
			}
			if reloads {
				reload().do(x, nil)
			}
			x.hasAnswer = true
			fresh := t.grant()
			x.w.log(x, "gets credential %d from the issuer", fresh)
			return fresh, nil
		})
		t.refreshed(x, failures, lease, time.Since(began), err)
	}}
}

// watch calls Done, and does not wait for the end of the session.
func watch() op {
	return op{"watches", "watches the session", func(x *exchange, _ http.ResponseWriter) { x.s.Done() }}
}

// stream waits for the end of the session.
func stream(d time.Duration) op {
	return op{"waits", "waits for the end of the session, for " + d.String() + " at most", func(x *exchange, _ http.ResponseWriter) {
		t := time.NewTimer(d)
		defer t.Stop()
		isDone := false
		done := x.s.Done()
		select {
		case <-done:
		case <-t.C:
		}
		x.w.park(place{task: x.task, call: "wake"})
		select { // the choice of the first select is random if both are ready
		case <-done:
			isDone = true
		default:
		}
		if isDone {
			x.w.log(x, "sees that Done is closed")
			x.w.truth.done(x)
		} else {
			x.w.log(x, "has waited, and Done is still open")
			x.w.truth.notDone(x)
		}
	}}
}

// leave starts a goroutine that executes these steps after the handler has returned, at least d
// later.
func leave(d time.Duration, steps ...lateStep) op {
	var does []string
	for _, s := range steps {
		does = append(does, s.name)
	}
	what := "starts a goroutine that continues after the handler and " + strings.Join(does, ", ")
	return op{"starts a goroutine", what, func(x *exchange, _ http.ResponseWriter) {
		if x.hasLeft { // a goroutine that waits for the commit of another one would block the scheduler
			return
		}
		x.hasLeft = true
		x.w.busy++
		x.w.start(func(task int) {
			defer func() { x.w.busy-- }()
			for x.w.sleep(task, d); x.ended.IsZero(); x.w.sleep(task, time.Second) {
			}
			for _, s := range steps {
				if x.p.isDead {
					return
				}
				s.do(x, task)
			}
		})
	}}
}

// A lateStep is one action of a goroutine whose handler has returned.
type lateStep struct {
	name string
	do   func(x *exchange, task int)
}

// markLate adds a mark and saves it after d. If d is more than a second, an event must have
// reported that the mark is dropped.
func markLate(d time.Duration) lateStep {
	return lateStep{"adds a mark and saves it after " + d.String(), func(x *exchange, task int) {
		c := x.w.truth.changesLate(x)
		n := x.addLate()
		x.w.sleep(task, d)
		err := x.s.Save(x.ctx())
		x.w.log(x, "saves mark %d and gets the result: %s", n, told(err))
		if err == nil {
			x.w.truth.expectMarks(x, []int{n})
		}
		x.w.sleep(task, tellWithin)
		c.saved(d, err)
	}}
}

// forget adds a mark and does not save it.
func forget() lateStep {
	return lateStep{"adds a mark and does not save it", func(x *exchange, task int) {
		c := x.w.truth.changesLate(x)
		x.w.truth.unsaved[x.addLate()] = true
		x.w.sleep(task, tellWithin)
		c.forgotten()
	}}
}

func markLateNow() lateStep {
	return lateStep{"adds a mark and stores it at once", func(x *exchange, _ int) { markNow().do(x, nil) }}
}

func takeLate() lateStep {
	return lateStep{"takes the voucher", func(x *exchange, _ int) { take().do(x, nil) }}
}

// addLate adds a mark after the handler has returned.
func (x *exchange) addLate() (n int) {
	n = x.w.truth.next()
	x.w.log(x, "adds mark %d after its handler has returned", n)
	marks.Update(x.s, func(all []int) []int { return append(all[:len(all):len(all)], n) })
	return n
}

// someSteps returns random actions of a goroutine that continues after its handler.
func someSteps(rng *rand.Rand) (steps []lateStep) {
	for range rng.IntN(3) {
		switch rng.IntN(4) {
		case 0:
			steps = append(steps, markLate(time.Duration(rng.IntN(3)/2)*someTime(rng, 4*time.Second)))
		case 1:
			steps = append(steps, markLate(0))
		case 2:
			steps = append(steps, markLateNow())
		case 3:
			steps = append(steps, takeLate())
		}
	}
	if len(steps) == 0 || rng.IntN(2) == 0 {
		steps = append(steps, forget()) // last, because a Save of a later step would store the mark
	}
	return steps
}

// someOps returns random actions of a request of a browser, except Login and Logout.
func someOps(rng *rand.Rand) (ops []op) {
	for range rng.IntN(4) {
		switch rng.IntN(15) {
		case 0, 1, 2, 3:
			ops = append(ops, mark())
		case 4:
			ops = append(ops, markNow())
		case 5:
			ops = append(ops, set(rng.IntN(2)*rng.IntN(200)))
		case 6:
			ops = append(ops, flash())
		case 7:
			ops = append(ops, save())
		case 8:
			ops = append(ops, works(someTime(rng, time.Minute)))
		case 9:
			ops = append(ops, offer())
		case 10:
			ops = append(ops, take())
		case 11:
			d, within := someTime(rng, 40*time.Second), max(0, time.Duration(rng.Int64N(int64(20*time.Second)))-10*time.Second)
			if rng.IntN(3) == 0 {
				d, within = 29*time.Second+someTime(rng, 2*time.Second), 0
			}
			ops = append(ops, refresh(d, within, rng.IntN(4) == 0))
		case 12:
			ops = append(ops, sendHeader())
		case 13:
			ops = append(ops, reload())
		case 14:
			ops = append(ops, leave(someTime(rng, time.Minute), someSteps(rng)...))
		}
	}
	if rng.IntN(40) == 0 {
		ops = append(ops, panics())
	}
	return ops
}
