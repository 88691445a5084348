package session_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sessiontest"
)

// basket is the value of the first version of a program.
type basket struct{ Items []string }

var baskets = session.NewKey[basket]("basket")

// coupon was added in the second version, with a key of its own.
var coupon = session.NewKey[string]("basket.coupon")

// TestRecipeRollingDeployment sends concurrent requests of one browser to processes of both
// versions.
func TestRecipeRollingDeployment(t *testing.T) {
	const n = 10
	type basketWithCoupon struct {
		Items  []string
		Coupon string
	}
	extended := session.NewKey[basketWithCoupon]("basket")

	m := newManager(t, session.Options{})
	mux := http.NewServeMux()
	mux.HandleFunc("/old/{item}", func(w http.ResponseWriter, r *http.Request) {
		baskets.Update(session.From(r.Context()), func(b basket) basket {
			b.Items = append(b.Items, r.PathValue("item"))
			return b
		})
	})
	mux.HandleFunc("/new/{item}", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		baskets.Update(s, func(b basket) basket {
			b.Items = append(b.Items, r.PathValue("item"))
			return b
		})
		coupon.Set(s, "SUMMER")
	})
	b := sessiontest.NewBrowser(t, m.Handler(overlap(2*n, mux)))
	b.Session(m, func(s *session.Session) { extended.Set(s, basketWithCoupon{Coupon: "of a field"}) })
	atOnce(2*n, func(i int) { b.Get(fmt.Sprintf("/%s/%d", []string{"old", "new"}[i%2], i)) })
	b.Session(m, func(s *session.Session) {
		if got := extended.Get(s); len(got.Items) != 2*n || coupon.Get(s) != "SUMMER" {
			t.Errorf("the basket has %d items, and the coupon %q", len(got.Items), coupon.Get(s))
		}
		if got := extended.Get(s).Coupon; got != "" { // a field of basket would be lost
			t.Errorf("the old version has kept an unknown field: %q", got)
		}
	})
}
