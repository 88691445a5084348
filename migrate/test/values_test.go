package migrate_test

import (
	"encoding/gob"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/coatcheck/session"
	"github.com/coatcheck/session/migrate"
)

// A hiding keeps a field out of its JSON, as types do that are also sent to browsers.
type hiding struct {
	ID   int64 `json:"-"`
	Name string
}

// A pair has fields whose JSON decodes to an equivalent value with other bytes.
type pair struct {
	At      time.Time
	Nothing []string `json:",omitempty"`
	To      *item
	Counts  map[string]int
}

// TestLosses checks that As leaves out a value that would lose a part of itself: the value is
// reported by name, and the others are taken over.
func TestLosses(t *testing.T) {
	for _, v := range []any{[]int{}, []any{}, struct{ N int }{}, map[string]any{}, map[string]int{}, hiding{}, pair{}, []hiding{}} {
		gob.Register(v)
	}
	log := logged(t)
	for _, c := range []struct {
		take migrate.Value
		old  any
		lost bool
	}{
		{migrate.As("v", session.NewKey[[2]int]("a")), []int{1, 2, 3}, true},
		{migrate.As("v", session.NewKey[[3]int]("b")), []int{1, 2, 3}, false},
		{migrate.As("v", session.NewKey[float32]("c")), 16777217.0, true},
		{migrate.As("v", session.NewKey[float32]("d")), 0.1, false},
		{migrate.As("v", session.NewKey[float64]("e")), int64(1<<53 + 1), true},
		{migrate.As("v", session.NewKey[int64]("f")), uint64(1<<53 + 1), false},
		{migrate.As("v", session.NewKey[struct{ N, Extra int8 }]("g")), struct{ N int }{7}, false},
		{migrate.As("v", session.NewKey[int8]("h")), 300, true},
		{migrate.As("v", session.NewKey[time.Time]("i")), "2026-01-02T03:04:05+02:00", false},
		{migrate.As("v", session.NewKey[string]("j")), "\xff", true}, // the session refuses it
		{migrate.As("v", session.NewKey[[]string]("k")), []any{"\xff"}, true},

		// gob keeps these fields, and JSON loses them.
		{migrate.As("v", session.NewKey[hiding]("l")), hiding{7, "ann"}, true},
		{migrate.As("v", session.NewKey[hiding]("m")), hiding{0, "ann"}, false},
		{migrate.As("v", session.NewKey[struct{ Name string }]("n")), hiding{7, "ann"}, true},
		{migrate.As("v", session.NewKey[[]hiding]("o")), []hiding{{0, "ann"}, {7, "bob"}}, true},
		{migrate.As("v", session.NewKey[map[string]hiding]("p")), map[string]any{"ann": hiding{7, "ann"}}, true},
		{migrate.Convert("v", session.NewKey[hiding]("q"), func(any) (hiding, error) { return hiding{7, "ann"}, nil }), "ann", true},

		// The type of a number in an any.
		{migrate.As("v", session.NewKey[any]("r")), 7, true},
		{migrate.As("v", session.NewKey[any]("s")), 7.5, false},
		{migrate.As("v", session.NewKey[map[string]any]("t")), map[string]any{"n": 7, "s": "tea"}, true},
		{migrate.As("v", session.NewKey[map[string]any]("u")), map[string]any{"n": 7.5, "s": "tea", "l": []any{true, "x"}}, false},
		{migrate.As("v", session.NewKey[map[string]int]("v")), map[string]any{"n": 7}, false},
		{migrate.As("v", session.NewKey[[]int]("w")), []any{7, int64(8)}, false},

		// Equivalent values whose bytes differ.
		{migrate.As("v", session.NewKey[pair]("x")), pair{At: when.In(time.FixedZone("", 3600)), Nothing: []string{}}, false},
		{migrate.As("v", session.NewKey[pair]("y")), pair{At: when, To: &item{"tea", 2}, Counts: map[string]int{"a": 1}}, false},
	} {
		log.Reset()
		old := scs.New()
		l := ofSCS(old)
		l.login = func(_ http.ResponseWriter, r *http.Request, user any) {
			old.Put(r.Context(), "user", user)
			old.Put(r.Context(), "v", c.old)
		}
		v := newMove(t, l, func(_ *session.Options, o *migrate.Options) { o.Values = []migrate.Value{c.take} })
		v.get(v.browser, v.before+"/login?user=ann")
		v.expect(v.browser, "ann 0 [] 00:00:00")
		if strings.Contains(log.String(), "name=v") != c.lost || !c.lost && log.Len() > 0 {
			t.Errorf("%T %v: the log is %q", c.old, c.old, log)
		}
	}
}
