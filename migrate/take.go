package migrate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"github.com/coatcheck/session"
)

const (
	// claimLife is for how long the others wait for a process that has died over a
	// takeover.
	claimLife = 10 * time.Second
	// inTime is how long after a takeover a response may bring its cookies: the
	// browser may have newer ones later. Who gets none comes again with the old one.
	inTime = 5 * time.Second
)

// take gives the request the session that its old one has become. It returns the
// cookies of the response.
func (t *Takeover) take(r *http.Request) (lines []string, err error) {
	old, err := r.Cookie(t.o.Old.cookie())
	if err != nil || old.Value == "" {
		return nil, nil
	}
	has, err := t.hasOurs(r)
	if err != nil {
		return nil, nil // as the handler will find out
	}
	lines = []string{t.o.Old.deletion(r).String()}
	if has {
		return lines, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 2*claimLife)
	defer cancel()
	line, err := t.line(ctx, r, newTicket(old.Name, old.Value))
	switch {
	case err != nil || line == "": // it was nobody's
		return nil, err
	case line == nothing:
		return lines, nil
	}
	ours, err := http.ParseSetCookie(line)
	if err != nil {
		return nil, err
	}
	// The Manager reads the request's cookies when the session is used first, and
	// that is now.
	setCookie(r.Header, ours)
	s := t.m.From(r.Context())
	if err := s.Err(); err == nil && s.IsNew() {
		return lines, nil // it was taken over before, and has ended since
	}
	return append(lines, line), nil
}

// hasOurs tells whether a request brings a session of ours, which it has then.
func (t *Takeover) hasOurs(r *http.Request) (has bool, err error) {
	t.apart(r, r.Header["Cookie"], func(s *session.Session) {
		has = !s.IsNew()
		if err = s.Err(); err == session.ErrReplaced {
			has, err = true, nil // and a newer one is on its way
		}
	})
	return has, err
}

// apart runs f in a session beside that of the request, with these cookies, and
// returns the response. The request's own session is not used by it.
func (t *Takeover) apart(r *http.Request, cookies []string, f func(*session.Session)) *http.Response {
	beside := r.Clone(context.Background()) // inside the request's own the Manager passes through
	beside.Method, beside.Body = http.MethodGet, http.NoBody
	beside.Header.Del("Sec-Fetch-Site") // its cookie was not kept back
	beside.Header["Cookie"] = cookies
	answer := httptest.NewRecorder()
	t.m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		f(t.m.From(r.Context()))
	})).ServeHTTP(answer, beside)
	return answer.Result()
}

// setCookie puts a cookie in the place of those of its name.
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

// nothing is the line of an old session in which there was nothing to take.
const nothing = "-"

var errSlow = errors.New("another request has taken over this session, and has not finished")

// line returns the Set-Cookie of the session that this ticket's has become, "" if
// there was none.
func (t *Takeover) line(ctx context.Context, r *http.Request, k ticket) (string, error) {
	for try := 0; ; try++ {
		line, err := t.taken(ctx, k)
		switch {
		case errors.Is(err, session.ErrNotFound):
			old, err := t.o.Old.read(r)
			if err != nil {
				return "", err
			}
			if old == nil {
				// It is none, or another request has taken it over since we looked.
				if _, err := t.taken(ctx, k); errors.Is(err, session.ErrNotFound) {
					return "", nil
				}
				break
			}
			claim, err := t.claim(ctx, k)
			if err == nil {
				return t.carry(ctx, r, k, claim, old)
			}
			if !errors.Is(err, session.ErrExists) {
				return "", err
			}
		case err != nil || line != "":
			return line, err
		}
		if err := pause(ctx, try); err != nil {
			return "", errSlow
		}
	}
}

// pause waits before the next look at somebody else's claim.
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

// carry makes the new session, and ends the old one.
func (t *Takeover) carry(ctx context.Context, r *http.Request, k ticket, claim *session.Record, old *oldSession) (line string, err error) {
	var id string
	sealed := false
	defer func() {
		if !sealed { // another request may try
			_ = t.o.Store.Delete(context.WithoutCancel(ctx), claim.ID)
			if id != "" {
				_ = t.o.Store.Delete(context.WithoutCancel(ctx), id)
			}
		}
	}()
	if line, id, err = t.begin(ctx, r, old); err != nil {
		return "", err
	}
	if line != nothing {
		if err := t.seal(ctx, k, claim, line, old.ends); err != nil {
			return "", err
		}
		sealed = true
		t.count.Add(1)
	}
	if err := old.end(); err != nil {
		slog.ErrorContext(r.Context(), "migrate: an old session was taken over, and could not be ended in its store", "err", err)
	}
	return line, nil
}

// begin begins a session with what the old one had, as a request of its own would. It
// returns the Set-Cookie that came of it, and the session's id.
func (t *Takeover) begin(ctx context.Context, r *http.Request, old *oldSession) (line, id string, err error) {
	user, err := userText(old.values[t.o.User])
	if err != nil {
		return "", "", fmt.Errorf("the user, %q, of an old session: %w", t.o.User, err)
	}
	resp := t.apart(r, nil, func(s *session.Session) {
		if user != "" {
			s.Login(user)
		}
		t.fill(r, s, old)
		if err = s.Save(ctx); err != nil {
			return
		}
		if id = s.ID(); id != "" {
			err = t.adjust(ctx, s, old)
			id = s.ID()
		}
	})
	switch lines := resp.Header["Set-Cookie"]; {
	case err != nil:
		return "", id, err
	case resp.StatusCode != http.StatusOK:
		return "", id, fmt.Errorf("the Manager answers %s", resp.Status)
	case id == "":
		return nothing, "", nil
	case len(lines) != 1:
		return "", id, errors.New("the Manager sets no cookie: Options.Bearer cannot take sessions over")
	case strings.HasPrefix(lines[0], t.o.Old.cookie()+"="):
		return "", id, fmt.Errorf("the old cookie and the Manager's are both named %q: set session.Options.Cookie.Name", t.o.Old.cookie())
	}
	return resp.Header["Set-Cookie"][0], id, nil
}

// fill gives a session the values of an old one, and reports what it cannot take.
func (t *Takeover) fill(r *http.Request, s *session.Session, old *oldSession) {
	report := func(name string, err error) {
		slog.WarnContext(r.Context(), "migrate: a value of an old session was not taken over", "name", name, "err", err)
	}
	for _, v := range t.o.Values {
		if value, ok := old.values[v.name]; ok {
			if err := v.take(s, value); err != nil {
				report(v.name, err)
			}
		}
	}
	for _, name := range t.unnamed(old) {
		report(name, errors.New("neither Options.Values nor Options.Ignore names it"))
	}
}

// unnamed returns the names of the values that the options do not name, sorted.
func (t *Takeover) unnamed(old *oldSession) (names []string) {
	for name := range old.values {
		if name != t.o.User && !slices.Contains(t.o.Ignore, name) && !slices.ContainsFunc(t.o.Values, func(v Value) bool { return v.name == name }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// adjust gives the new session what the old one had left, and its beginning, if
// anybody knows it: it was then that somebody was authenticated, not now.
func (t *Takeover) adjust(ctx context.Context, s *session.Session, old *oldSession) error {
	rec, err := t.o.Store.Load(ctx, s.ID())
	if err != nil {
		return err
	}
	if t.o.Remember && old.ends.After(rec.Deadline) {
		s.Remember(time.Until(old.ends))
		if err := s.Save(ctx); err != nil {
			return err
		}
		if rec, err = t.o.Store.Load(ctx, s.ID()); err != nil {
			return err
		}
	}
	r := *rec
	r.Created = old.created.Truncate(time.Millisecond)
	if ends := old.ends.Truncate(time.Millisecond); ends.Before(r.Deadline) {
		r.Deadline = ends
	}
	if r.Expires.After(r.Deadline) {
		r.Expires = r.Deadline
	}
	r.Version = newVersion()
	return t.o.Store.Save(ctx, &r, rec.Version) // nobody else has it yet
}
