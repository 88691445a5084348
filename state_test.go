package session

import (
	"errors"
	"testing"
	"time"

	"github.com/coatcheck/session/internal/body"
)

// TestPlan tests plan, a pure function from a state to an action.
func TestPlan(t *testing.T) {
	var (
		alice    = &Record{User: "alice"}
		set      = pending{changes: body.Changes{{Call: "Set", Name: `"a"`, Raw: []byte("1")}}}
		forget   = pending{changes: body.Changes{{Call: "Delete", Name: `"a"`}}}
		login    = pending{user: "alice"}
		another  = pending{user: "bob"}
		renew    = pending{renew: true}
		remember = pending{remember: time.Unix(1, 0)}
		endBy    = pending{endBy: time.Unix(1, 0)}
		logout   = pending{logout: true}
		anew     = pending{logout: true, user: "bob", changes: set.changes}
		wrong    = problem{problemLasting, errors.New("wrong")}
	)
	every := map[string]pending{"nothing": {}, "Set": set, "Delete": forget, "Login": login, "Login as another": another,
		"Renew": renew, "Remember": remember, "EndBy": endBy, "Logout": logout, "Logout and Login": anew}
	for _, c := range []struct {
		name string
		st   stored
		want map[string]action // by change of every; a missing change has no action
	}{
		{"nothing stored", stored{status: statusNone}, map[string]action{"Set": actCreate, "Login": actCreate, "Login as another": actCreate, "Logout": actEnd, "Logout and Login": actEnd}},
		{"live", stored{status: statusLive, rec: alice}, map[string]action{"Set": actSave, "Delete": actSave, "Login": actSave, "Login as another": actReplace, "Renew": actSave, "Remember": actSave, "EndBy": actSave, "Logout": actEnd, "Logout and Login": actEnd}},
		{"anonymous", stored{status: statusLive, rec: &Record{}}, map[string]action{"Set": actSave, "Delete": actSave, "Login": actReplace, "Login as another": actReplace, "Renew": actSave, "Remember": actSave, "EndBy": actSave, "Logout": actEnd, "Logout and Login": actEnd}},
		{"before a renewal", stored{status: statusLive, rec: alice, frozen: alice}, map[string]action{"Set": actSave, "Delete": actSave, "Login": actSave, "Login as another": actReplace, "Renew": actSave, "Remember": actSave, "EndBy": actSave, "Logout": actEnd, "Logout and Login": actEnd}},
		{"first use", stored{status: statusLive, rec: alice, due: body.Maintenance{Present: true}}, map[string]action{"nothing": actSave, "Set": actSave, "Delete": actSave, "Login": actSave, "Login as another": actReplace, "Renew": actSave, "Remember": actSave, "EndBy": actSave, "Logout": actEnd, "Logout and Login": actEnd}},
	} {
		for what, todo := range every {
			if got := (&state{stored: c.st, pending: todo}).plan(phaseOpen, time.Time{}); got != c.want[what] {
				t.Errorf("%s, %s: %s, want %s", c.name, what, got, c.want[what])
			}
		}
	}
	for _, is := range []status{statusAmbiguous, statusStale, statusUnproven, statusReplaced, statusEnded} {
		for what, want := range map[string]action{"Set": actDrop, "Delete": actDrop, "Renew": actDrop, "Remember": actDrop, "EndBy": actDrop,
			"Login": actCreate, "Login as another": actCreate, "Logout": actEnd, "Logout and Login": actEnd} {
			todo := every[what]
			switch {
			case is == statusReplaced && want == actCreate:
				want = actReplace // because the Login may take over the values
			case is == statusUnproven && want == actCreate:
				want = actReplace // because nobody could end the old session by its cookie any more
			}
			if got := (&state{stored: stored{status: is}, pending: todo}).plan(phaseOpen, time.Time{}); got != want {
				t.Errorf("%s, %s: %s, want %s", is, what, got, want)
			}
		}
	}
	// The time of an EndBy has passed.
	past, before := endBy.endBy, endBy.endBy.Add(-time.Millisecond)
	for _, c := range []struct {
		name   string
		st     stored
		todo   pending
		before action // before that time, and after it
		after  action
	}{
		{"live", stored{status: statusLive, rec: alice}, pending{endBy: past}, actSave, actSave},
		{"live, Login as another", stored{status: statusLive, rec: alice}, pending{endBy: past, user: "bob"}, actReplace, actSave},
		{"live, Logout", stored{status: statusLive, rec: alice}, pending{endBy: past, logout: true}, actEnd, actEnd},
		{"nothing", stored{status: statusNone}, pending{endBy: past}, actNothing, actNothing},
		{"nothing, Set", stored{status: statusNone}, pending{endBy: past, changes: set.changes}, actCreate, actDrop},
		{"nothing, Login", stored{status: statusNone}, pending{endBy: past, user: "bob"}, actCreate, actDrop},
		{"replaced, Login", stored{status: statusReplaced}, pending{endBy: past, user: "bob"}, actReplace, actDrop},
		{"ended, Login", stored{status: statusEnded}, pending{endBy: past, user: "bob"}, actCreate, actDrop},
	} {
		for now, want := range map[time.Time]action{before: c.before, past: c.after, past.Add(time.Hour): c.after} {
			if got := (&state{stored: c.st, pending: c.todo}).plan(phaseOpen, now); got != want {
				t.Errorf("%s, EndBy %v ago: %s, want %s", c.name, now.Sub(past), got, want)
			}
		}
	}
	for _, c := range []struct {
		name     string
		at       phase
		st       stored
		todo     pending
		p        problem
		withheld bool
		want     action
	}{
		{"an old key", phaseOpen, stored{status: statusLive, rec: alice, due: body.Maintenance{Renew: true}}, pending{}, problem{}, false, actSave},
		{"an old key, and no cookie can leave", phaseSent, stored{status: statusLive, rec: alice, due: body.Maintenance{Renew: true}}, pending{}, problem{}, false, actNothing},
		{"an old key after the handler", phaseReturned, stored{status: statusLive, rec: alice, due: body.Maintenance{Renew: true}}, pending{}, problem{}, false, actNothing},
		{"something ended", phaseOpen, stored{status: statusLive, rec: alice, due: body.Maintenance{Tidy: true}}, pending{}, problem{}, false, actSave},
		{"first use, late", phaseSent, stored{status: statusLive, rec: alice, due: body.Maintenance{Present: true}}, pending{}, problem{}, false, actSave},
		{"a cookie may be withheld", phaseOpen, stored{status: statusNone}, set, problem{}, true, actDrop},
		{"a cookie may be withheld from a Login", phaseOpen, stored{status: statusNone}, login, problem{}, true, actCreate},
		{"a lasting problem", phaseOpen, stored{status: statusLive, rec: alice}, set, wrong, false, actRefuse},
		{"a lasting problem, reported", phaseOpen, stored{status: statusLive, rec: alice}, set, problem{problemLastingReported, wrong.err}, false, actRefuse},
		{"a passing problem", phaseOpen, stored{status: statusLive, rec: alice}, set, problem{problemPassing, wrong.err}, false, actSave},
		{"a lasting problem of a Logout", phaseOpen, stored{status: statusLive, rec: alice}, logout, wrong, false, actEnd},
		{"the store failed", phaseOpen, stored{status: statusUnknown}, logout, wrong, false, actRefuse},
	} {
		if got := (&state{stored: c.st, pending: c.todo, problem: c.p, withheld: c.withheld}).plan(c.at, time.Time{}); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestProblem checks the kind of a problem after Save has returned it, and after a later
// change.
func TestProblem(t *testing.T) {
	err := errors.New("wrong")
	for kind, want := range map[problemKind][2]problemKind{ // kind after report, and after retry
		problemNone:            {problemNone, problemNone},
		problemPassing:         {problemPassingReported, problemPassing},
		problemPassingReported: {problemPassingReported, problemPassing},
		problemLasting:         {problemLastingReported, problemLastingReported},
		problemLastingReported: {problemLastingReported, problemLastingReported},
		problemLate:            {problemPassingReported, problemPassing},
		problemLateLogin:       {problemLateLogin, problemLateLogin},
	} {
		p := problem{kind, err}
		p.report()
		reported := p.kind
		p.retry()
		if got := [2]problemKind{reported, p.kind}; got != want {
			t.Errorf("%s: report and retry make it %s, want %s", kind, got, want)
		}
		if p.err != err {
			t.Error("the error is lost")
		}
	}
}
