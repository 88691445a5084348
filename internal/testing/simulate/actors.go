package simulate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/coatcheck/session"
)

// A browser belongs to one user, who may have two accounts.
type browser struct {
	w      *world
	task   int
	name   string
	index  int // index of actor in Plan.Actors
	actor  Actor
	step   int
	sent   int        // requests so far in the step
	rng    *rand.Rand // randomness of the step
	isSlow bool       // the network is slow
	cookie string     // "": none

	bindings []*binding // sessions for which the browser has a key
	jar      []secondCookie
	proofs   int // requests to the endpoint so far
}

func newBrowser(w *world, i int, a Actor) *browser {
	return &browser{w: w, name: fmt.Sprintf("browser %d", i), index: i, actor: a}
}

func (b *browser) account(n int) string { return fmt.Sprintf("%s's account %d", b.name, n) }

// live executes the steps of the browser, with pauses between them.
func (b *browser) live(task int) {
	b.task = task
	for _, step := range b.actor.Steps {
		b.rng, b.step, b.sent = b.actor.rng(step), step, 0
		b.w.sleep(task, b.pause())
		switch b.rng.IntN(22) {
		case 0, 1:
			b.visit(false, append(someOps(b.rng), login(b.account(0)))...)
		case 2:
			ops := []op{login(b.account(b.rng.IntN(8) / 7))}
			if b.rng.IntN(4) == 0 { // the header is sent long after the token was stored
				ops = append(ops, save(), works(someTime(b.rng, time.Minute)))
			}
			if b.rng.IntN(4) == 0 { // a script that sends the form several times concurrently
				for range 3 + b.rng.IntN(3) {
					b.send(b.prepare(false, ops...))
				}
				continue
			}
			b.doubleClick(ops...)
		case 3:
			b.visit(false, append(someOps(b.rng), login(b.account(b.rng.IntN(2))))...)
		case 4:
			b.visit(false, append(someOps(b.rng), renew())...)
		case 5:
			ops := []op{remember(time.Duration(1+b.rng.IntN(72)) * time.Hour)}
			switch b.rng.IntN(6) {
			case 0:
				ops = append(ops, endBy(time.Duration(1+b.rng.IntN(24))*time.Hour))
			case 1:
				ops = append([]op{login(b.account(0)), endBy(time.Duration(1+b.rng.IntN(24)) * time.Hour)}, ops...)
			case 2:
				ops = append(someOps(b.rng), endBy(time.Duration(b.rng.IntN(24))*time.Hour))
			}
			b.visit(false, ops...)
		case 6:
			if b.rng.IntN(4) == 0 { // a Logout concurrent to a Login that replaces the session
				b.send(b.prepare(false, works(b.upTo(10*time.Second)), logout()))
				b.visit(false, login(b.account(b.rng.IntN(2))))
				continue
			}
			b.visit(false, append(someOps(b.rng), logout())...)
		case 7:
			b.visit(false, renew(), revokeOthers())
		case 8, 9:
			if b.rng.IntN(2) == 0 { // at the same time as other browsers
				b.w.sleep(b.task, time.Until(time.Now().Truncate(20*time.Minute).Add(20*time.Minute)))
			}
			var all []*exchange
			for range 2 + b.rng.IntN(10) {
				all = append(all, b.prepare(false, someOps(b.rng)...))
			}
			for _, x := range all {
				b.send(x)
			}
		case 10:
			b.send(b.prepare(false, stream(someTime(b.rng, 20*time.Minute))))
		case 11:
			b.visit(true, someOps(b.rng)...)
		case 12:
			b.visit(false, works(someTime(b.rng, 3*time.Minute)), mark(), login(b.account(0)))
		case 13:
			ops := []op{watch()}
			for range b.rng.IntN(5) {
				ops = append(ops, works(b.upTo(10*time.Second)), renew(), save())
			}
			b.visit(false, append(ops, sendHeader(), stream(someTime(b.rng, 5*time.Minute)))...)
		case 14, 15:
			b.isSlow = true // a bad network, and slow pages
			for range 4 + b.rng.IntN(16) {
				var ops []op
				if b.rng.IntN(2) == 0 {
					ops = append(ops, works(b.upTo(time.Minute)))
				}
				b.send(b.prepare(false, append(ops, someOps(b.rng)...)...))
				b.w.sleep(b.task, b.upTo(15*time.Second))
			}
			b.isSlow = false
		case 16:
			b.visit(false, append(someOps(b.rng), saveRefused())...)
		case 17:
			b.reorder()
		case 18:
			b.visit(false, login(b.account(0)))
			b.w.sleep(b.task, 2*time.Minute+b.upTo(time.Minute)) // then the credential has to be refreshed
			for range 2 + b.rng.IntN(3) {
				b.send(b.prepare(false, refresh(30*time.Second-someTime(b.rng, 2*time.Second), 0, false)))
				b.w.sleep(b.task, b.upTo(10*time.Second))
			}
		case 19:
			b.useOtherDevices()
		default:
			b.visit(false, someOps(b.rng)...)
		}
	}
}

// useOtherDevices logs in on several devices concurrently; the devices are not used again. The
// Logins may be committed in another order.
func (b *browser) useOtherDevices() {
	for range 2 + b.rng.IntN(2) {
		x := &exchange{sender: "another device of " + b.name, rng: b.w.split(b.rng), ops: []op{login(b.account(0)), works(b.upTo(4 * time.Second))}}
		b.w.start(func(task int) { b.w.send(task, x) })
		b.w.sleep(b.task, someTime(b.rng, 2*time.Second))
	}
}

// reorder reverses the order in which two tokens of automatic renewals arrive: the browser gets the
// second token, and then the first one, while requests with the second are in flight.
func (b *browser) reorder() {
	b.visit(false, login(b.account(0)))
	b.w.sleep(b.task, time.Minute+b.upTo(time.Minute))
	isSoon := b.rng.IntN(2) == 0 // the first token arrives before a request with it may cause a renewal
	first := b.prepare(false)
	first.delay = overlap + 5*time.Second + b.upTo(arrival)
	if isSoon {
		first.delay = overlap + 4*time.Second
	}
	b.send(first)
	b.w.sleep(b.task, overlap+b.upTo(3*time.Second))
	<-b.send(b.prepare(false))
	b.w.park(place{task: b.task, call: "answered"})
	b.send(b.prepare(false, works(time.Minute+b.upTo(time.Minute)), mark()))
	if isSoon {
		b.w.sleep(b.task, 6*time.Second)
		b.send(b.prepare(false))
		b.w.sleep(b.task, 2*time.Minute)
		return
	}
	b.isSlow = true
	for range 2 { // uploads, which a proxy buffers until they are complete
		upload := b.prepare(false)
		upload.way = b.upTo(90 * time.Second)
		b.send(upload)
	}
	for range 1 + b.rng.IntN(6) {
		b.w.sleep(b.task, b.upTo(20*time.Second))
		b.send(b.prepare(false))
	}
	b.isSlow = false
}

// late returns how many of four responses are late.
func (b *browser) late() int {
	if b.isSlow {
		return 3
	}
	return 1
}

// upTo returns a random time of less than most.
func (b *browser) upTo(most time.Duration) time.Duration {
	return time.Duration(b.rng.Int64N(int64(most)))
}

// pause returns the time between two actions of a user.
func (b *browser) pause() time.Duration {
	switch b.rng.IntN(10) {
	case 0:
		return 0
	case 1:
		return time.Duration(b.rng.Int64N(int64(5 * time.Hour))) // the laptop sleeps
	case 2, 3:
		return time.Duration(b.rng.Int64N(int64(15 * time.Minute)))
	}
	return someTime(b.rng, time.Minute)
}

// prepare returns a request with the current cookie.
func (b *browser) prepare(passive bool, ops ...op) *exchange {
	return &exchange{sender: b.name, rng: b.w.split(b.rng), browser: b, passive: passive, ops: ops}
}

// visit sends a request and usually waits for its response.
func (b *browser) visit(passive bool, ops ...op) {
	done := b.send(b.prepare(passive, ops...))
	if b.rng.IntN(4) > 0 {
		<-done
		b.w.park(place{task: b.task, call: "answered"})
	}
}

// doubleClick sends a form at least twice. The browser may ignore the first responses.
func (b *browser) doubleClick(ops ...op) {
	for range 1 + b.rng.IntN(8)/6*b.rng.IntN(5) {
		first := b.prepare(false, append([]op{works(someTime(b.rng, time.Second))}, ops...)...)
		first.sender += " (first click)"
		b.send(first)
		b.w.sleep(b.task, someTime(b.rng, time.Second))
	}
	b.visit(false, append([]op{works(someTime(b.rng, time.Second))}, ops...)...)
}

// send sends a request in a goroutine of its own. The returned channel is closed when the browser
// has processed the header of the response, or will never get it.
func (b *browser) send(x *exchange) <-chan struct{} {
	done := make(chan struct{})
	w, faults := b.w, b.w.plan.Faults
	// As in fate, the random numbers do not depend on the faults of the plan.
	isLost := b.rng.IntN(8) == 0 && faults&LostResponses != 0
	isLate := b.rng.IntN(4) < b.late() && faults&LostResponses != 0
	delay := b.upTo(50 * time.Second)
	if !isLate {
		delay = 0
	}
	if faults&LostResponses != 0 {
		delay += x.delay
	}
	isOnWay, onWay := b.rng.IntN(2) == 0 && b.isSlow && faults&LostResponses != 0, b.upTo(15*time.Second)
	if !isOnWay {
		onWay = 0
	}
	if faults&LostResponses != 0 {
		onWay += x.way
	}
	isRetried := b.rng.IntN(12) == 0 && faults&Retries != 0
	again := &exchange{sender: x.sender + " (repeated by a proxy)", rng: w.split(b.rng), browser: b, passive: x.passive, ops: x.ops}
	this := Sent{b.step, b.sent}
	b.sent++
	if slices.Contains(b.actor.Without, this) {
		close(done)
		return done
	}
	w.sent[b.index] = append(w.sent[b.index], this)
	last := x
	if isRetried {
		last = again
	}
	last.onHeader = func() {
		if isLost {
			last.isLost = true
			return
		}
		last.isDelivered = true
		w.start(func(task int) {
			defer close(done)
			if delay > 0 {
				w.truth.count("fault: a late response")
				w.sleep(task, delay)
			}
			b.receive(last)
		})
	}
	w.start(func(task int) {
		skipped := b.proves(task)
		x.left, again.left = time.Now(), time.Now()
		x.token, x.seconds, x.skipped = b.cookie, b.seconds(), skipped
		again.token, again.seconds, again.skipped = x.token, x.seconds, x.skipped
		if onWay > 0 {
			w.truth.count("fault: a late request")
			w.sleep(task, onWay)
		}
		w.send(task, x)
		if isRetried {
			w.log(x, "its response is lost on the way to a proxy, which repeats the request")
			w.truth.count("fault: a repeated request")
			w.send(task, again)
		}
		if !last.isDelivered {
			w.log(last, "its response does not reach %s", b.name)
			w.truth.count("fault: a lost response")
			close(done)
		}
	})
	return done
}

// receive stores the cookie of a response.
func (b *browser) receive(x *exchange) {
	c := x.cookie
	for _, name := range x.deletes {
		b.drop(name)
	}
	b.register(x)
	switch {
	case c == nil:
		return
	case c.MaxAge < 0:
		b.w.log(x, "its response reaches %s, which deletes its cookie (%s)", b.name, b.w.truth.nameOf(b.cookie))
		b.cookie = ""
	default:
		b.w.log(x, "its response reaches %s, whose cookie is now %s and was %s", b.name, b.w.truth.nameOf(c.Value), b.w.truth.nameOf(b.cookie))
		b.cookie = c.Value
	}
}

// A jar contains the cookies that a thief has copied from a browser.
type jar struct {
	token   string
	seconds []secondCookie
}

// steal lets a thief copy cookies and use them at random times.
func (w *world) steal(task, i int, a Actor) {
	var stolen []jar
	own := "" // token of an anonymous session of the thief
	sender := fmt.Sprintf("thief %d", i)
	for _, step := range a.Steps {
		rng := a.rng(step)
		w.sleep(task, someTime(rng, 3*time.Minute))
		if b := w.browsers[rng.IntN(len(w.browsers))]; b.cookie != "" && !slices.ContainsFunc(stolen, func(j jar) bool { return j.token == b.cookie }) && rng.IntN(3) == 0 {
			w.log(nil, "%s copies %s of %s, and all other cookies", sender, w.truth.nameOf(b.cookie), b.name)
			stolen = append(stolen, jar{b.cookie, b.seconds()})
			if b.canBind() {
				w.start(func(task int) { w.stealProof(task, sender, b) })
			}
		}
		if len(stolen) == 0 {
			continue
		}
		x := &exchange{sender: sender, rng: w.split(rng)}
		from := stolen[rng.IntN(len(stolen))]
		x.token, x.seconds = from.token, from.seconds
		switch rng.IntN(10) {
		case 4, 5, 6: // triggers many renewals, and uses one of the new tokens
			var got []string
			for range 1 + rng.IntN(100) {
				again := &exchange{sender: sender, rng: w.split(rng), token: x.token, seconds: x.seconds}
				w.start(func(task int) {
					if w.send(task, again); again.cookie != nil && again.cookie.MaxAge >= 0 {
						got = append(got, again.cookie.Value)
					}
				})
				w.sleep(task, time.Second+someTime(rng, time.Second))
			}
			if back := 1 + rng.IntN(40); back <= len(got) {
				x.token = got[len(got)-back]
			}
		case 7, 8:
			x.own = own
			if own == "" {
				x.token, x.ops = "", []op{mark()}
			}
		case 0:
			x.ops = []op{logout()}
		case 1:
			x.ops = []op{stream(someTime(rng, 20*time.Minute))}
		case 2:
			x.ops = []op{renew()}
		case 3:
			x.ops = []op{mark()}
		}
		keeps := rng.IntN(2) == 0
		w.start(func(task int) {
			w.send(task, x)
			if x.token == "" && x.cookie != nil {
				own = x.cookie.Value
				return
			}
			if keeps && x.cookie != nil && x.cookie.MaxAge >= 0 {
				stolen = append(stolen, jar{x.cookie.Value, x.seconds})
			}
		})
	}
}

// crawl lets a crawler request pages that begin a session. Some of the sessions are used once more
// with their cookie. Some requests log a user in on a device that is not used again.
func (w *world) crawl(task, i int, a Actor) {
	for _, step := range a.Steps {
		rng := a.rng(step)
		w.sleep(task, someTime(rng, 30*time.Minute))
		for range 1 + rng.IntN(8) {
			x := &exchange{sender: fmt.Sprintf("crawler %d", i), rng: w.split(rng), ops: []op{mark()}}
			again := &exchange{sender: x.sender, rng: w.split(rng)}
			comesBack := rng.IntN(2) == 0
			if rng.IntN(6) == 0 {
				x.ops = []op{login(w.browsers[rng.IntN(len(w.browsers))].account(0))}
			}
			w.start(func(task int) {
				if w.send(task, x); comesBack && x.cookie != nil {
					again.token = x.cookie.Value
					w.send(task, again)
				}
			})
			w.sleep(task, someTime(rng, 10*time.Second))
		}
	}
}

// operate lets an operator end and change sessions.
func (w *world) operate(task int, a Actor) {
	ctx := context.WithValue(context.Background(), actorKey{}, task)
	for _, step := range a.Steps {
		rng := a.rng(step)
		w.sleep(task, someTime(rng, time.Hour))
		w.busy++
		w.operateOnce(ctx, rng)
		w.busy--
	}
}

// operateOnce ends all sessions of a user, ends one, or changes one.
func (w *world) operateOnce(ctx context.Context, rng *rand.Rand) {
	user := w.browsers[rng.IntN(len(w.browsers))].account(rng.IntN(2))
	m := w.processes[rng.IntN(len(w.processes))].manager
	if rng.IntN(2) == 0 {
		w.log(nil, "the operator ends all sessions of %s", user)
		w.log(nil, "the operator gets the result: %s", told(m.RevokeAll(ctx, user)))
		return
	}
	listed, err := m.List(ctx, user)
	w.log(nil, "the operator lists the sessions of %s and gets the result: %s, %d sessions", user, told(err), len(listed))
	if len(listed) > 0 {
		s := listed[rng.IntN(len(listed))]
		if rng.IntN(2) == 0 {
			w.log(nil, "the operator ends session %d and gets the result: %s", w.truth.number(s.ID), told(m.Revoke(ctx, user, s.ID)))
			return
		}
		err := m.Edit(ctx, user, s.ID, func(s *session.Session) { name.Set(s, "changed by the operator") })
		w.log(nil, "the operator changes session %d and gets the result: %s", w.truth.number(s.ID), told(err))
	}
}

// setClocks sets back the clocks of the store and of all processes by up to hours, or changes the
// clock of one process by some seconds. Records in the memory of a request cannot be moved together
// with the stored ones. So the actor waits for a moment without requests, or restarts all
// processes, as if their machine restarted.
func (w *world) setClocks(task int, a Actor) {
	for _, step := range a.Steps {
		rng := a.rng(step)
		w.sleep(task, someTime(rng, 3*time.Hour))
		d, i, isOne := (time.Duration(rng.Int64N(int64(5*time.Hour))) >> (rng.IntN(2) * rng.IntN(16))).Truncate(time.Millisecond), rng.IntN(16)%len(w.processes), rng.IntN(3) == 0
		ahead := time.Duration(rng.IntN(4000)) * time.Millisecond
		waits := rng.IntN(2) == 0 || w.plan.Faults&Deaths == 0
		for n := 0; waits && w.busy > 0 && n < 1000; n++ {
			w.sleep(task, time.Second)
		}
		for n := 0; !waits && !w.truth.isRefreshing() && n < 1000; n++ { // the most difficult moment
			w.sleep(task, time.Second)
		}
		if w.busy > 0 {
			if w.plan.Faults&Deaths == 0 {
				continue
			}
			for i := range w.processes {
				w.restart(i)
			}
		}
		switch {
		case !isOne:
			w.setBack(d)
		case w.plan.Faults&Clocks != 0:
			w.log(nil, "the clock of process %d is now ahead by %v", i, ahead)
			w.truth.count("fault: the clock of a process is set")
			w.processes[i].ahead = ahead
		}
	}
}

// setBack sets back all clocks. Virtual time cannot go back, so the times of the records are moved
// forward.
func (w *world) setBack(d time.Duration) {
	w.log(nil, "all clocks are set back by %v", d)
	w.truth.count("fault: all clocks are set back")
	w.library.SetBack(w.store, d, func(data []byte) []byte { return Later(data, d) })
	w.truth.setBack(d)
}

// deployAll deploys new versions of the program, one after another.
func (w *world) deployAll(task int, a Actor) {
	for _, step := range a.Steps {
		rng := a.rng(step)
		w.sleep(task, someTime(rng, 2*time.Hour))
		w.deploy(task, rng)
	}
}

// deploy replaces the processes by new ones, one after another, with the next step of a rotation of
// the secrets: the new secret is added last in all processes before it is first in any. A new
// version may have other limits. The old processes finish their requests.
func (w *world) deploy(task int, rng *rand.Rand) {
	w.secrets++
	next := w.plan.limits()
	next.maxData = []int{50, 200, 1000, defaultMaxData}[rng.IntN(4)]
	if rng.IntN(2) == 0 {
		next.lifetime = []time.Duration{30 * time.Minute, 2 * time.Hour, 72 * time.Hour}[rng.IntN(3)]
		next.idle = min(next.lifetime, []time.Duration{5 * time.Minute, 30 * time.Minute, 6 * time.Hour}[rng.IntN(3)])
	}
	w.truth.count("deployments")
	for i, old := range w.processes {
		w.sleep(task, someTime(rng, time.Minute))
		if w.processes[i] != old {
			continue // the process has been restarted, with the new secrets and limits
		}
		w.log(nil, "process %d is replaced by one with the secrets of step %d, and %v", i, w.secrets, next)
		w.truth.deployed(old.limits, next)
		w.processes[i] = &process{w: w, n: i, ahead: old.ahead, limits: next}
		w.processes[i].start()
	}
}

// secretsOf returns the secrets of a step of the rotation.
func secretsOf(step int) [][]byte {
	secret := func(n int) []byte { return fmt.Appendf(nil, "the secret number %032d", n) }
	n := step / 2
	if step%2 == 0 {
		return [][]byte{secret(n), secret(n - 1), secret(n - 2), secret(n - 3)}
	}
	return [][]byte{secret(n), secret(n - 1), secret(n - 2), secret(n + 1)}
}

// split returns the randomness of a request of a step. It depends on Plan.Seed.
func (w *world) split(rng *rand.Rand) *rand.Rand {
	return rand.New(rand.NewPCG(w.plan.Seed, rng.Uint64()))
}

// told describes the result of a call.
func told(err error) string {
	if err == nil {
		return "done"
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}
