package session

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/coatcheck/session/internal/body"
)

// plan is a pure function: state in, action out.
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
		wrong    = problem{lasting, errors.New("wrong")}
	)
	every := map[string]pending{"nothing": {}, "Set": set, "Delete": forget, "Login": login, "Login as another": another,
		"Renew": renew, "Remember": remember, "EndBy": endBy, "Logout": logout, "Logout and Login": anew}
	for _, c := range []struct {
		name string
		st   stored
		want map[string]action // of every; what is not there rests
	}{
		{"nothing stored", stored{is: nothing}, map[string]action{"Set": create, "Login": create, "Login as another": create, "Logout": end, "Logout and Login": end}},
		{"live", stored{is: live, rec: alice}, map[string]action{"Set": save, "Delete": save, "Login": save, "Login as another": replace, "Renew": save, "Remember": save, "EndBy": save, "Logout": end, "Logout and Login": end}},
		{"anonymous", stored{is: live, rec: &Record{}}, map[string]action{"Set": save, "Delete": save, "Login": replace, "Login as another": replace, "Renew": save, "Remember": save, "EndBy": save, "Logout": end, "Logout and Login": end}},
		{"before a renewal", stored{is: live, rec: alice, frozen: alice}, map[string]action{"Set": save, "Delete": save, "Login": save, "Login as another": replace, "Renew": save, "Remember": save, "EndBy": save, "Logout": end, "Logout and Login": end}},
		{"first use", stored{is: live, rec: alice, due: body.Maintenance{Present: true}}, map[string]action{"nothing": save, "Set": save, "Delete": save, "Login": save, "Login as another": replace, "Renew": save, "Remember": save, "EndBy": save, "Logout": end, "Logout and Login": end}},
	} {
		for what, todo := range every {
			if got := plan(open, &c.st, &todo, problem{}, false, time.Time{}); got != c.want[what] {
				t.Errorf("%s, %s: %d, want %d", c.name, what, got, c.want[what])
			}
		}
	}
	for _, is := range []knowledge{twins, stale, replaced, ended} {
		for what, want := range map[string]action{"Set": drop, "Delete": drop, "Renew": drop, "Remember": drop, "EndBy": drop,
			"Login": create, "Login as another": create, "Logout": end, "Logout and Login": end} {
			todo := every[what]
			if is == replaced && want == create {
				want = replace // whose values the Login may take over
			}
			if got := plan(open, &stored{is: is}, &todo, problem{}, false, time.Time{}); got != want {
				t.Errorf("knowledge %d, %s: %d, want %d", is, what, got, want)
			}
		}
	}
	// The time of an EndBy has passed.
	past, later := endBy.endBy, endBy.endBy.Add(-time.Millisecond)
	for _, c := range []struct {
		name string
		st   stored
		todo pending
		want action // later; and
		past action
	}{
		{"live", stored{is: live, rec: alice}, pending{endBy: past}, save, save},
		{"live, Login as another", stored{is: live, rec: alice}, pending{endBy: past, user: "bob"}, replace, save},
		{"live, Logout", stored{is: live, rec: alice}, pending{endBy: past, logout: true}, end, end},
		{"nothing", stored{is: nothing}, pending{endBy: past}, rest, rest},
		{"nothing, Set", stored{is: nothing}, pending{endBy: past, changes: set.changes}, create, drop},
		{"nothing, Login", stored{is: nothing}, pending{endBy: past, user: "bob"}, create, drop},
		{"replaced, Login", stored{is: replaced}, pending{endBy: past, user: "bob"}, replace, drop},
		{"ended, Login", stored{is: ended}, pending{endBy: past, user: "bob"}, create, drop},
	} {
		for now, want := range map[time.Time]action{later: c.want, past: c.past, past.Add(time.Hour): c.past} {
			if got := plan(open, &c.st, &c.todo, problem{}, false, now); got != want {
				t.Errorf("%s, EndBy %v ago: %d, want %d", c.name, now.Sub(past), got, want)
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
		{"an old key", open, stored{is: live, rec: alice, due: body.Maintenance{Renew: true}}, pending{}, problem{}, false, save},
		{"an old key, and no cookie can leave", sent, stored{is: live, rec: alice, due: body.Maintenance{Renew: true}}, pending{}, problem{}, false, rest},
		{"an old key after the handler", returned, stored{is: live, rec: alice, due: body.Maintenance{Renew: true}}, pending{}, problem{}, false, rest},
		{"something ended", open, stored{is: live, rec: alice, due: body.Maintenance{Tidy: true}}, pending{}, problem{}, false, save},
		{"first use, late", sent, stored{is: live, rec: alice, due: body.Maintenance{Present: true}}, pending{}, problem{}, false, save},
		{"a cookie may be withheld", open, stored{is: nothing}, set, problem{}, true, drop},
		{"a cookie may be withheld from a Login", open, stored{is: nothing}, login, problem{}, true, create},
		{"a lasting problem", open, stored{is: live, rec: alice}, set, wrong, false, refuse},
		{"a lasting problem, reported", open, stored{is: live, rec: alice}, set, problem{lastingReported, wrong.err}, false, refuse},
		{"a passing problem", open, stored{is: live, rec: alice}, set, problem{passing, wrong.err}, false, save},
		{"a lasting problem of a Logout", open, stored{is: live, rec: alice}, logout, wrong, false, end},
		{"the store failed", open, stored{is: unknown}, logout, wrong, false, refuse},
	} {
		if got := plan(c.at, &c.st, &c.todo, c.p, c.withheld, time.Time{}); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// What becomes of a problem when Save returns it, and when something is changed
// after that.
func TestProblem(t *testing.T) {
	err := errors.New("wrong")
	for is, want := range map[gravity]string{
		none:            "report none, retry none",
		passing:         "report passingReported, retry passing",
		passingReported: "report passingReported, retry passing",
		lasting:         "report lastingReported, retry lastingReported",
		lastingReported: "report lastingReported, retry lastingReported",
		missed:          "report passingReported, retry passing",
		missedLogin:     "report missedLogin, retry missedLogin",
	} {
		names := []string{"none", "passing", "passingReported", "lasting", "lastingReported", "missed", "missedLogin"}
		p := problem{is, err}
		p.report()
		reported := p
		p.retry()
		if got := fmt.Sprintf("report %s, retry %s", names[reported.is], names[p.is]); got != want {
			t.Errorf("%s: %s, want %s", names[is], got, want)
		}
		if p.err != err {
			t.Error("the error is lost")
		}
	}
}
