package migrate_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/browsers"
	"github.com/coatcheck/session/migrate"
)

// TestTimeOfTheLogin checks that the time of the login is computed from the deadline and the
// Lifetime, and is unknown if the result would be after the takeover: then the deadline was moved,
// or the Lifetime was longer when the session began.
func TestTimeOfTheLogin(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		moved   time.Duration // deadline set by SetDeadline, from the login; 0: none
		atLogin time.Duration // Lifetime at the login
		now     time.Duration // Lifetime at the takeover
		isKnown bool
	}{
		"unchanged":                {atLogin: day, now: day, isKnown: true},
		"SetDeadline":              {moved: 30 * day, atLogin: day, now: day},
		"SetDeadline by a minute":  {moved: day + time.Minute, atLogin: day, now: day},
		"a longer Lifetime before": {atLogin: 30 * day, now: day},
		"the longest one":          {moved: 30 * day, atLogin: day, now: 30 * day, isKnown: true},
	} {
		old := scs.New()
		old.Lifetime = c.atLogin
		l := ofSCS(old)
		login := l.login
		l.login = func(w http.ResponseWriter, r *http.Request, user any) {
			login(w, r, user)
			if c.moved > 0 {
				old.SetDeadline(r.Context(), time.Now().Add(c.moved))
			}
		}
		v := newMove(t, l, nil)
		before := time.Now().Truncate(time.Millisecond)
		v.get(v.browser, v.before+"/login?user=ann")
		old.Lifetime = c.now
		v.expect(v.browser, carried)
		list, err := v.m.List(t.Context(), "ann")
		if err != nil || len(list) != 1 {
			t.Fatal(len(list), err)
		}
		at := list[0].Created
		if at.After(time.Now()) || at.IsZero() == c.isKnown || c.isKnown && at.Before(before) {
			t.Errorf("%s: Created is %v, the login was at %v", name, at, before)
		}
	}
}

// TestMovedDeadlineBesideMaxPerUser checks that a login elsewhere ends, by MaxPerUser, a session
// that was taken over and whose deadline had been moved.
func TestMovedDeadlineBesideMaxPerUser(t *testing.T) {
	old := scs.New()
	l := ofSCS(old)
	login := l.login
	l.login = func(w http.ResponseWriter, r *http.Request, user any) {
		login(w, r, user)
		old.SetDeadline(r.Context(), time.Now().Add(30*24*time.Hour))
	}
	v := newMove(t, l, func(so *session.Options, _ *migrate.Options) { so.MaxPerUser = 1 })
	v.get(v.browser, v.before+"/login?user=ann")
	v.expect(v.browser, carried)
	v.handle(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if r.URL.Path == "/login" {
			s.Login("ann")
		}
		fmt.Fprint(w, s.User())
	})
	other := browsers.New(t, nil)
	v.get(other, v.after+"/login")
	v.expect(other, "ann")
	v.expect(v.browser, "")
}

// A hookedStore calls a function before it creates the session of a user.
type hookedStore struct {
	session.Store
	before func()
}

func (h *hookedStore) Create(ctx context.Context, r *session.Record) error {
	if f := h.before; f != nil && r.User == "ann" {
		h.before = nil
		f()
	}
	return h.Store.Create(ctx, r)
}

// TestLoginElsewhereDuringATakeover checks that a login of the same user during a takeover ends the
// session that is taken over, with MaxPerUser 1, as an older login would end.
func TestLoginElsewhereDuringATakeover(t *testing.T) {
	var v *move
	store := &hookedStore{}
	v = newMove(t, ofSCS(scs.New()), func(so *session.Options, mo *migrate.Options) {
		store.Store = so.Store
		so.Store, mo.Store, so.MaxPerUser = store, store, 1
	})
	v.handle(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if r.URL.Path == "/login" {
			s.Login("ann")
		}
		fmt.Fprint(w, s.User())
	})
	other := browsers.New(t, nil)
	store.before = func() {
		time.Sleep(2 * time.Millisecond) // times are stored in milliseconds
		v.get(other, v.after+"/login")
	}
	log := logged(t)
	v.get(v.browser, v.before+"/login?user=ann")
	v.expect(v.browser, "")
	v.expect(v.browser, "")
	v.expect(other, "ann")
	if got := v.cookies(); len(got) > 0 || strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("cookies %q, log %s, want no cookies and no error", got, log)
	}
}
