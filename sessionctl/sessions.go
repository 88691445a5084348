package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/object"
)

// manager returns a Manager for the store, which makes no tokens. It appends the ids of the
// sessions that it ends to ended.
func (p *program) manager(t *target, ended *[]string) (*session.Manager, error) {
	secret := make([]byte, 32)
	rand.Read(secret)
	return session.New(&session.Options{
		Store: t.Store, Secrets: [][]byte{secret}, StoreTimeout: p.timeout,
		DeviceBound: time.Hour, // without it, Info.DeviceBound is false
		Logger:      slog.New(slog.DiscardHandler),
		OnEvent: func(_ context.Context, e session.Event) {
			if e.Kind == session.EventRevoked && ended != nil {
				*ended = append(*ended, e.ID)
			}
		},
	})
}

// A listed is a session in the answer of list.
type listed struct {
	ID          string    `json:"id"`
	Created     time.Time `json:"created"` // when Login was last called
	LastSeen    time.Time `json:"last_seen"`
	Expires     time.Time `json:"expires"`
	Remembered  bool      `json:"remembered"`
	DeviceBound bool      `json:"device_bound"`
}

func (p *program) list(ctx context.Context, t *target, args []string) (int, error) {
	user := args[0]
	infos, err := p.sessionsOf(ctx, t, user)
	if err != nil {
		return exitStore, err
	}
	answer := struct {
		User     string   `json:"user"`
		Sessions []listed `json:"sessions"`
	}{user, []listed{}}
	for _, i := range infos {
		answer.Sessions = append(answer.Sessions, listed{i.ID, i.Created.UTC(), i.LastSeen.UTC(), i.Expires.UTC(), i.Remembered, i.DeviceBound})
	}
	p.answer(answer, func(w io.Writer) {
		if len(infos) == 0 {
			fmt.Fprintln(w, noSessions(t, user))
			return
		}
		fmt.Fprintf(w, "%s has %s (show ID tells more):\n\n", plain(user), plural(len(infos), "live session"))
		rows := [][]string{{"ID", "LOGGED IN", "LAST SEEN", "EXPIRES", ""}} // 80 columns, but for traits
		now := time.Now()
		for _, s := range answer.Sessions {
			rows = append(rows, []string{s.ID, date(s.Created), distance(s.LastSeen, now), distance(s.Expires, now), traits(s.Remembered, s.DeviceBound)})
		}
		printTable(w, rows)
	})
	return exitDone, nil
}

// noSessions says that a user has no sessions, and why that may be a mistake.
func noSessions(t *target, user string) string {
	return fmt.Sprintf("%s has no live session. USER must be what the program passes to Login, letter by letter: perhaps a number, and not an e-mail address. %s.", plain(user), t.hint())
}

// traits are what is not so for most sessions.
func traits(isRemembered, isBound bool) string {
	var all []string
	if isRemembered {
		all = append(all, "remembered")
	}
	if isBound {
		all = append(all, "bound to its browser")
	}
	return strings.Join(all, ", ")
}

func (p *program) sessionsOf(ctx context.Context, t *target, user string) ([]session.Info, error) {
	if user == "" {
		return nil, usagef("the user is empty: anonymous sessions are in no list")
	}
	m, err := p.manager(t, nil)
	if err != nil {
		return nil, usageError(err.Error())
	}
	return m.List(ctx, user)
}

// A shown is the answer of show.
type shown struct {
	ID          string    `json:"id"`
	State       string    `json:"state"` // "live", "ended" or "none"
	User        string    `json:"user,omitempty"`
	Created     time.Time `json:"created,omitzero"` // or the last Login
	LastSeen    time.Time `json:"last_seen,omitzero"`
	Expires     time.Time `json:"expires,omitzero"`
	Deadline    time.Time `json:"deadline,omitzero"`
	Remembered  bool      `json:"remembered,omitempty"`
	DeviceBound bool      `json:"device_bound,omitempty"`
	Bytes       int       `json:"bytes,omitempty"` // of Record.Data
	Flashes     int       `json:"flashes,omitempty"`
	Values      []value   `json:"values,omitempty"`

	EndedBy body.Reason `json:"ended_by,omitempty"`
	EndedAt time.Time   `json:"ended_at,omitzero"`
	Next    string      `json:"next,omitempty"` // id of the session that a Login began in its place
}

type value struct {
	Name  string          `json:"name"`
	Bytes int             `json:"bytes"`
	Value json.RawMessage `json:"value,omitempty"`
}

func (p *program) show(ctx context.Context, t *target, args []string) (int, error) {
	id := args[0]
	rec, err := p.load(ctx, t, id)
	if err != nil {
		return exitStore, err
	}
	s, err := p.describe(id, rec)
	if err != nil {
		return exitStore, err
	}
	p.answer(s, func(w io.Writer) { s.print(w, t) })
	if s.State != "live" {
		return exitBad, nil
	}
	return exitDone, nil
}

// load returns a record, or nil if there is none.
func (p *program) load(ctx context.Context, t *target, id string) (*session.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	rec, err := t.Load(ctx, id)
	if errors.Is(err, session.ErrNotFound) {
		return nil, nil
	}
	return rec, err
}

// describe returns the answer of show for a record, which may be nil.
func (p *program) describe(id string, rec *session.Record) (*shown, error) {
	if rec == nil {
		return &shown{ID: id, State: "none"}, nil
	}
	if e, ok := body.EndingOf(rec.Data); ok {
		return &shown{ID: id, State: "ended", EndedBy: e.Reason, EndedAt: e.At.UTC(), Next: e.Next}, nil
	}
	s := &shown{
		ID: id, State: "live", User: rec.User, Bytes: len(rec.Data),
		Created: rec.Created.UTC(), LastSeen: rec.LastSeen.UTC(), Expires: rec.Expires.UTC(), Deadline: rec.Deadline.UTC(),
		Remembered: body.IsRemembered(rec.Data), DeviceBound: !body.BoundFrom(rec.Data).IsZero(),
	}
	members, err := object.Append(nil, rec.Data)
	if err != nil {
		return nil, fmt.Errorf("the record of the session is damaged: its data is %w", err)
	}
	for _, m := range members {
		switch {
		case string(m.Name) == body.Flashes:
			var flashes []json.RawMessage
			_ = json.Unmarshal(m.Raw, &flashes)
			s.Flashes = len(flashes)
		case !strings.HasPrefix(string(m.Name), body.Reserved):
			v := value{Bytes: len(m.Raw)}
			_ = json.Unmarshal(m.Name, &v.Name) // a name of a member is a JSON string
			if p.values {
				v.Value = json.RawMessage(m.Raw)
			}
			s.Values = append(s.Values, v)
		}
	}
	slices.SortFunc(s.Values, func(a, b value) int { return strings.Compare(a.Name, b.Name) })
	return s, nil
}

func (s *shown) print(w io.Writer, t *target) {
	now := time.Now()
	switch s.State {
	case "none":
		fmt.Fprintf(w, "There is no session %s: it has expired, it ended more than a minute ago, or it is in another store. %s.\n", plain(s.ID), t.hint())
		return
	case "ended":
		fmt.Fprintf(w, "Session %s has ended, by %s, %s.\n", plain(s.ID), reason(s.EndedBy), when(s.EndedAt, now))
		if s.Next != "" {
			fmt.Fprintf(w, "The login began session %s in its place.\n", plain(s.Next))
		}
		return
	}
	fmt.Fprintf(w, "Session %s is live.\n\n", plain(s.ID))
	user, since := plain(s.User), "logged in"
	if s.User == "" {
		user, since = "nobody is logged in", "created"
	}
	rows := [][]string{
		{"user", user},
		{since, when(s.Created, now)},
		{"last seen", when(s.LastSeen, now) + ", or later, by 1/20 of the idle timeout at most"},
		{"expires", when(s.Expires, now) + " unless used"},
		{"ends", when(s.Deadline, now) + ", used or not"},
	}
	if text := traits(s.Remembered, s.DeviceBound); text != "" {
		rows = append(rows, []string{"is", text})
	}
	rows = append(rows, []string{"size", plural(s.Bytes, "byte") + " of data"}, []string{"flashes", fmt.Sprint(s.Flashes)}, []string{"values", fmt.Sprint(len(s.Values))})
	printTable(w, rows)
	if len(s.Values) == 0 {
		return
	}
	fmt.Fprintln(w)
	rows = [][]string{{"VALUE", "BYTES", ""}}
	for _, v := range s.Values {
		rows = append(rows, []string{plain(v.Name), fmt.Sprint(v.Bytes), plain(string(v.Value))})
	}
	printTable(w, rows)
	if s.Values[0].Value == nil {
		fmt.Fprintln(w, "\nThe values themselves may be personal or secret: -values prints them.")
	}
}

// reason describes why a session has ended.
func reason(r body.Reason) string {
	switch r {
	case body.ReasonLogout:
		return "a logout"
	case body.ReasonRevoke:
		return "a revocation (Revoke, MaxPerUser or this command)"
	case body.ReasonLogin:
		return "a login, which replaced it"
	}
	return plain(string(r))
}

// A revoked is the answer of revoke and revoke-all.
type revoked struct {
	User  string   `json:"user"`
	Ended []string `json:"ended"`
}

func (p *program) revoke(ctx context.Context, t *target, args []string) (int, error) {
	user, id := args[0], args[1]
	infos, err := p.sessionsOf(ctx, t, user)
	if err != nil {
		return exitStore, err
	}
	i := slices.IndexFunc(infos, func(i session.Info) bool { return i.ID == id })
	if i < 0 {
		p.answer(revoked{user, []string{}}, func(w io.Writer) {
			fmt.Fprintf(w, "Nothing was ended: %s has no live session %s. It may have ended already, or be another user's: show tells.\n", plain(user), plain(id))
		})
		return exitBad, nil
	}
	question := fmt.Sprintf("End session %s of %s, last seen %s, in %s?", plain(id), plain(user), distance(infos[i].LastSeen, time.Now()), t.name)
	return p.end(t, user, question, func(m *session.Manager) error { return m.Revoke(ctx, user, id) })
}

func (p *program) revokeAll(ctx context.Context, t *target, args []string) (int, error) {
	user := args[0]
	infos, err := p.sessionsOf(ctx, t, user)
	if err != nil {
		return exitStore, err
	}
	if len(infos) == 0 {
		p.answer(revoked{user, []string{}}, func(w io.Writer) { fmt.Fprintln(w, "Nothing was ended:", noSessions(t, user)) })
		return exitDone, nil
	}
	question := fmt.Sprintf("End %s of %s, all that are live, in %s?", plural(len(infos), "session"), plain(user), t.name)
	return p.end(t, user, question, func(m *session.Manager) error { return m.RevokeAll(ctx, user) })
}

// end asks the question, and ends sessions by f.
func (p *program) end(t *target, user, question string, f func(*session.Manager) error) (int, error) {
	if err := p.confirm(question); err != nil {
		return exitRefused, err
	}
	ended := []string{}
	m, err := p.manager(t, &ended)
	if err != nil {
		return exitStore, usageError(err.Error())
	}
	if err := f(m); err != nil {
		return exitStore, fmt.Errorf("ended %s, and others may still be live: run the command again (%w)", plural(len(ended), "session"), err)
	}
	p.answer(revoked{user, ended}, func(w io.Writer) {
		if len(ended) == 0 {
			fmt.Fprintln(w, "Nothing was ended: it had ended already.")
			return
		}
		fmt.Fprintf(w, "Ended %s of %s:\n", plural(len(ended), "session"), plain(user))
		for _, id := range ended {
			fmt.Fprintln(w, " ", id)
		}
		fmt.Fprintln(w, "A request that arrives from now on is not logged in. One that is in flight may finish; a WebSocket that waits for Session.Done is told within Options.WatchEvery, 5 s by default.")
	})
	return exitDone, nil
}

// confirm asks a question, and returns an errRefused if the answer is not yes.
func (p *program) confirm(question string) error {
	if p.yes {
		return nil
	}
	if !p.canAsk {
		return fmt.Errorf("%w: there is no terminal to ask on. Nothing was changed. With -yes the command does not ask: %s", errRefused, question)
	}
	fmt.Fprint(p.err, question, " [y/N] ")
	answer, _ := bufio.NewReader(p.in).ReadString('\n')
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return fmt.Errorf("%w: nothing was changed", errRefused)
	}
	return nil
}
