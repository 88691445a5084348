package migrate

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/crosssite"
)

const (
	// claimLife is how long other requests wait if the process that has claimed a session dies
	// during the takeover.
	claimLife = 10 * time.Second
	// inTime is how long after a takeover a response may set its cookies: after that the browser
	// may have newer ones. A browser that gets no cookie sends the old one again.
	inTime = 5 * time.Second
)

// take replaces the session of the request by the one that its old session was taken over into.
// cookies returns the Set-Cookie lines when the header of the response is written; nil: there are
// none.
func (t *Takeover) take(r *http.Request) (cookies func() []string, err error) {
	cookie, err := r.Cookie(t.o.Old.cookie())
	if err != nil || cookie.Value == "" {
		return nil, nil
	}
	has, err := t.holderOf(r, r.Header["Cookie"])
	if err != nil {
		return nil, nil // the handler gets the same error from the session
	}
	deletion := func() []string { return []string{t.o.Old.deletion(r).String()} }
	if has == holderUser {
		return deletion, nil
	}
	old, err := t.o.Old.read(r)
	if old == nil {
		return nil, err
	}
	isForeign := has == holderNone && crosssite.Is(r)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 2*claimLife)
	defer cancel()
	begun, err := t.become(ctx, r, newTicket(cookie.Name, t.o.Old.spelled(cookie.Value)), old, has)
	switch {
	case err != nil || begun.Cookie == "":
		return nil, err
	case begun.Cookie == nothing && isForeign:
		return nil, nil
	case begun.Cookie == nothing:
		return deletion, nil
	}
	ours, err := http.ParseSetCookie(begun.Cookie)
	if err != nil {
		return nil, err
	}
	if isForeign && crosssite.Withholds(r, ours.SameSite) {
		return nil, nil // the browser may have another session of the Manager
	}
	if has == holderAnonymous {
		if h, err := t.holderOf(r, []string{ours.Name + "=" + ours.Value}); err != nil || h != holderUser {
			return deletion, err // taken over earlier, and ended since
		}
	}
	// The Manager reads the cookies of the request when the session is first used, which is the
	// next line.
	setCookie(r.Header, ours)
	s := t.m.From(r.Context())
	if err := s.Err(); err == nil && s.IsNew() {
		return deletion, nil // taken over earlier, and ended since
	}
	return func() []string {
		if !t.isNewest(r, begun) {
			return nil // another response sets a newer token
		}
		return append(deletion(), begun.Cookie)
	}, nil
}

// isNewest reports whether the token with which a session began is still the current one.
func (t *Takeover) isNewest(r *http.Request, b begun) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), claimLife)
	defer cancel()
	rec, err := t.o.Store.Load(ctx, b.ID)
	return err == nil && body.IsCurrent(rec.Data, b.Key)
}

// A holder says whether a request carries a session of the Manager, and whether that is a user's.
type holder int

const (
	holderNone      holder = iota
	holderAnonymous        // replaced by an old session of a user
	holderUser
)

// holderOf classifies the session of the Manager that these cookies identify.
func (t *Takeover) holderOf(r *http.Request, cookies []string) (h holder, err error) {
	t.apart(r, cookies, func(s *session.Session) {
		switch err = s.Err(); {
		case err == session.ErrReplaced:
			h, err = holderUser, nil // another response sets the newer token
		case s.User() != "":
			h = holderUser
		case !s.IsNew():
			h = holderAnonymous
		}
	})
	return h, err
}

// apart runs f in a separate request with these cookies, and returns the response. The session of r
// itself is not used.
func (t *Takeover) apart(r *http.Request, cookies []string, f func(*session.Session)) *http.Response {
	beside := r.Clone(context.Background()) // with the context of r, the Manager would pass the request through
	beside.Method, beside.Body = http.MethodGet, http.NoBody
	beside.Header.Del("Sec-Fetch-Site") // these cookies were not withheld by the browser
	beside.Header["Cookie"] = cookies
	answer := httptest.NewRecorder()
	t.m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		f(t.m.From(r.Context()))
	})).ServeHTTP(answer, beside)
	return answer.Result()
}

// setCookie replaces the cookies of the name of c by c.
func setCookie(h http.Header, c *http.Cookie) {
	var pairs []string
	for _, line := range h["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			if name, _, _ := strings.Cut(strings.Trim(pair, " \t"), "="); name != c.Name {
				pairs = append(pairs, strings.Trim(pair, " \t"))
			}
		}
	}
	h.Set("Cookie", strings.Join(append(pairs, c.Name+"="+c.Value), "; "))
}

// nothing is the Cookie of an old session from which nothing is taken over.
const nothing = "-"

var errSlow = errors.New("another request is taking this session over and has not finished in time")

// become returns the session that an old one was taken over into, and takes it over if necessary.
// The result is zero if the old session is missing and was never taken over.
func (t *Takeover) become(ctx context.Context, r *http.Request, k ticket, old *oldSession, has holder) (begun, error) {
	for try := 0; ; try++ {
		made, err := t.taken(ctx, k)
		switch {
		case errors.Is(err, session.ErrNotFound) && old.isMissing:
			return begun{}, nil
		case errors.Is(err, session.ErrNotFound):
			user, err := t.user(old)
			if err != nil {
				return begun{}, err
			}
			if user == "" && (has == holderAnonymous || !t.hasValues(old)) {
				return begun{Cookie: nothing}, nil
			}
			if !t.allows(user, old) {
				t.end(ctx, old)
				return begun{Cookie: nothing}, nil
			}
			claim, err := t.claim(ctx, k)
			if err == nil {
				return t.carry(ctx, r, k, claim, old, user)
			}
			if !errors.Is(err, session.ErrExists) {
				return begun{}, err
			}
		case err != nil || made.Cookie != "":
			return made, err
		}
		if err := pause(ctx, try); err != nil {
			return begun{}, errSlow
		}
	}
}

// allows reports whether the session of user ("" if anonymous) may be taken over.
func (t *Takeover) allows(user string, old *oldSession) bool {
	return user == "" || t.o.Allow == nil || t.o.Allow(user, old.created)
}

// hasValues reports whether an old session has a value that Options.Values lists.
func (t *Takeover) hasValues(old *oldSession) bool {
	return slices.ContainsFunc(t.o.Values, func(v Value) bool {
		_, ok := old.values[v.name]
		return ok
	})
}

// pause waits before the record of another request's claim is read again: 5 ms times the number of
// the try, at most 100 ms.
func pause(ctx context.Context, try int) error {
	timer := time.NewTimer(time.Duration(min(try+1, 20)) * 5 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
