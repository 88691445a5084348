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
	"github.com/coatcheck/session/migrate"
)

// A session counts as authenticated when its deadline and the Lifetime say, and at no
// time if that would be after the takeover: the deadline was moved then, or the Lifetime
// was longer when the session began.
func TestTimeOfTheLogin(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		moved   time.Duration // by SetDeadline
		then    time.Duration // Lifetime at the login
		now     time.Duration // and at the takeover
		isKnown bool
	}{
		"as it was":                  {then: day, now: day, isKnown: true},
		"SetDeadline":                {moved: 30 * day, then: day, now: day},
		"SetDeadline by a minute":    {moved: day + time.Minute, then: day, now: day},
		"a longer Lifetime before":   {then: 30 * day, now: day},
		"the longest there ever was": {moved: 30 * day, then: day, now: 30 * day, isKnown: true},
	} {
		old := scs.New()
		old.Lifetime = c.then
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
			t.Errorf("%s: authenticated at %v, logged in at %v", name, at, before)
		}
	}
}

// With MaxPerUser a session that was taken over, and whose deadline had been moved, gives
// way to a login elsewhere.
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
	other := newBrowser()
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

// While a session is taken over its user logs in elsewhere, and may have one session
// only. The one that is taken over ends, as an older login does.
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
	other := newBrowser()
	store.before = func() {
		time.Sleep(2 * time.Millisecond) // times are in milliseconds
		v.get(other, v.after+"/login")
	}
	log := logged(t)
	v.get(v.browser, v.before+"/login?user=ann")
	v.expect(v.browser, "")
	v.expect(v.browser, "")
	v.expect(other, "ann")
	if got := v.cookies(); len(got) > 0 || strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("cookies %q, log %s", got, log)
	}
}
