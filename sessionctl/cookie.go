package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/token"
)

// defaultNames are the names that session.New gives to the cookie.
var defaultNames = []string{"__Host-Http-session", "__Secure-session", "session"}

// tokenHeader is the response header with a new token if session.Options.Bearer is set.
const tokenHeader = "Session-Token"

// maxCookies is how many cookies of its name a Manager accepts in one request.
const maxCookies = 4

// A carried is a token in the input.
type carried struct {
	name     string // of the cookie; "": the input is a value without a name
	value    string
	isBearer bool // the token is from Authorization or Session-Token, not from a cookie
}

// A verdict is what is known of one token.
type verdict struct {
	report
	id    string // of the session; "": the signature is not valid
	key   string // hash of the key in the token
	works bool
}

// A judged is the answer of cookie.
type judged struct {
	Works bool     `json:"works"`
	IDs   []string `json:"ids"` // of the sessions whose tokens have a valid signature
	Lines []line   `json:"lines"`
}

// cookie says why a cookie works or not. Without a store it examines the signature alone.
func (p *program) cookie(ctx context.Context, _ []string) (int, error) {
	secrets, err := p.secrets()
	if err != nil {
		return exitUsage, err
	}
	t, err := p.open(ctx)
	if err != nil {
		return exitStore, err
	}
	if t != nil {
		defer t.close()
	}
	text, err := p.read()
	if err != nil {
		return exitUsage, usageError(err.Error())
	}
	j := judged{IDs: []string{}}
	all, problems := p.parseCookies(text)
	var verdicts []*verdict
	for _, c := range all {
		v := &verdict{}
		v.signature(c, secrets)
		if v.id != "" {
			if err := p.record(ctx, t, v); err != nil {
				return exitStore, p.explain(t, err)
			}
		}
		verdicts = append(verdicts, v)
	}
	j.sum(verdicts, problems)
	p.answer(j, func(w io.Writer) { (&report{Lines: j.Lines}).print(w) })
	if !j.Works {
		return exitBad, nil
	}
	return exitDone, nil
}

// sum combines the verdicts on the tokens of one request.
func (j *judged) sum(verdicts []*verdict, problems []line) {
	j.Lines = problems
	var live []string
	for i, v := range verdicts {
		if v.id != "" && !slices.Contains(j.IDs, v.id) {
			j.IDs = append(j.IDs, v.id)
		}
		if v.works && !slices.Contains(live, v.id) {
			live = append(live, v.id)
		}
		for _, l := range v.Lines {
			if len(verdicts) > 1 {
				l.Text = fmt.Sprintf("token %d of %d: %s", i+1, len(verdicts), l.Text)
			}
			j.Lines = append(j.Lines, l)
		}
	}
	isRefused := slices.ContainsFunc(problems, func(l line) bool { return l.Mark == markBad })
	switch {
	case len(live) > 1:
		j.Lines = append(j.Lines, line{markBad, "It does not work: two tokens open two live sessions, so that neither counts. The next login or logout ends both; or the user deletes the cookies of the site."})
	case len(live) == 1 && !isRefused:
		j.Works = true
		text := "It works."
		if slices.ContainsFunc(j.Lines, func(l line) bool { return l.Mark == markUnseen }) {
			text = "It works, as far as could be examined (??)."
		}
		j.Lines = append(j.Lines, line{markOK, text})
	default:
		j.Lines = append(j.Lines, line{markBad, "It does not work: the lines above that begin with !! say why."})
	}
}

// read reads the input: all of it, or one line from a terminal.
func (p *program) read() (string, error) {
	const limit = 64 << 10 // bytes: more than any server accepts in a header
	if p.canAsk {
		fmt.Fprintln(p.err, "Paste the cookie's value, or the whole header Cookie, Set-Cookie or Authorization, and press Enter:")
		text, err := bufio.NewReader(io.LimitReader(p.in, limit)).ReadString('\n')
		if err == io.EOF {
			err = nil
		}
		return text, err
	}
	b, err := io.ReadAll(io.LimitReader(p.in, limit))
	return string(b), err
}

// parseCookies returns the tokens in the input, and what is wrong with the input itself.
func (p *program) parseCookies(text string) (all []carried, problems []line) {
	say := func(mark, format string, args ...any) {
		problems = append(problems, line{mark, fmt.Sprintf(format, args...)})
	}
	names := defaultNames
	if p.cookieName != "" {
		names = []string{p.cookieName}
	}
	var others []carried // cookies of other names
	for row := range strings.Lines(text) {
		row = strings.TrimSpace(row)
		header, content, _ := strings.Cut(row, ":")
		content = strings.TrimSpace(content)
		switch strings.ToLower(strings.TrimSpace(header)) {
		case "":
		case "authorization":
			if scheme, value, _ := strings.Cut(content, " "); strings.EqualFold(scheme, "Bearer") {
				all = append(all, carried{value: strings.TrimSpace(value), isBearer: true})
			} else {
				say(markBad, "the header Authorization is not a Bearer token: other schemes are ignored")
			}
		case strings.ToLower(tokenHeader):
			all = append(all, carried{value: content, isBearer: true})
		case "set-cookie":
			c, err := http.ParseSetCookie(content)
			if err != nil {
				say(markBad, "the header Set-Cookie is malformed, so browsers ignore it")
				continue
			}
			problems = append(problems, attributes(c)...)
			all = append(all, carried{name: c.Name, value: c.Value})
		case "cookie":
			row = content
			fallthrough
		default:
			for _, c := range pairs(row) {
				if c.name == "" {
					c.name = p.cookieName
				}
				if c.name == "" || slices.Contains(names, c.name) {
					all = append(all, c)
				} else {
					others = append(others, c)
				}
			}
		}
	}
	if len(all) == 0 && p.cookieName == "" {
		all = slices.DeleteFunc(slices.Clone(others), func(c carried) bool { return !isToken(c.value) })
	}
	switch {
	case len(all) == 0 && len(others) > 0:
		var found []string
		for _, c := range others {
			found = append(found, plain(c.name))
		}
		say(markBad, "there is no cookie named %s, only %s: the browser did not send it, or it has another name (-cookie-name). A browser keeps a cookie back that has expired, that is for another host (Domain) or Path, that is Secure on plain http, or, by SameSite, when another site made the request", strings.Join(names, " or "), strings.Join(found, ", "))
	case len(all) == 0 && len(problems) == 0:
		say(markBad, "the input is empty: give the value of the cookie, the whole header, or curl's cookie file, on standard input")
	case len(all) > maxCookies:
		say(markBad, "the request has %d cookies of this name, and more than %d are refused: the user deletes the cookies of the site, and the program looks for what sets them with different Domain or Path", len(all), maxCookies)
		all = all[:maxCookies]
	}
	return all, problems
}

// pairs returns the cookies of a Cookie header, the cookie in a row of a file in which curl keeps
// cookies (the Netscape format: seven fields with tabs between them), or the value that stands alone.
func pairs(row string) (all []carried) {
	if fields := strings.Split(row, "\t"); len(fields) == 7 {
		return []carried{{name: fields[5], value: fields[6]}}
	}
	if strings.HasPrefix(row, "#") { // a comment in such a file
		return nil
	}
	if isToken(row) || !strings.Contains(row, "=") {
		return []carried{{value: row}}
	}
	for pair := range strings.SplitSeq(row, ";") {
		name, value, ok := strings.Cut(pair, "=")
		if ok {
			all = append(all, carried{name: strings.TrimSpace(name), value: strings.TrimSpace(value)})
		}
	}
	return all
}

// isToken reports whether a text has the form of a token, with any signature.
func isToken(value string) bool {
	_, ok := token.SignedAt(value)
	return ok
}

// isWhole reports whether a value has the length of a token.
func isWhole(value string, secrets []secret) bool {
	signer, err := token.NewSigner("cookie", defaultNames[0], [][]byte{secrets[0].bytes})
	return err == nil && signer.Plausible(value)
}

// attributes returns why browsers drop a cookie that a response sets.
func attributes(c *http.Cookie) (problems []line) {
	say := func(isBad bool, format string, args ...any) {
		if isBad {
			problems = append(problems, line{markBad, fmt.Sprintf(format, args...)})
		}
	}
	name := strings.ToLower(c.Name)
	isHost := strings.HasPrefix(name, "__host-")
	say(c.MaxAge < 0 || !c.Expires.IsZero() && c.Expires.Before(time.Now()), "this response deletes the cookie (Max-Age or Expires), as a logout does")
	say(!c.Secure && (isHost || strings.HasPrefix(name, "__secure-") || strings.HasPrefix(name, "__http-")), "browsers drop the cookie: its name needs Secure, which is missing")
	say(isHost && (c.Domain != "" || c.Path != "/"), "browsers drop the cookie: a name that begins with __Host- forbids Domain and needs Path=/")
	say(!c.HttpOnly && (strings.HasPrefix(name, "__host-http-") || strings.HasPrefix(name, "__http-")), "browsers drop the cookie: its name needs HttpOnly, which is missing")
	say(!c.Secure && c.SameSite == http.SameSiteNoneMode, "browsers drop the cookie: SameSite=None needs Secure")
	return problems
}

// signature examines the signature of a token, and sets id if a secret verifies it.
func (v *verdict) signature(c carried, secrets []secret) {
	if c.value == "" {
		v.say(markBad, "the token is empty: a logout has deleted it")
		return
	}
	names := []string{c.name}
	if c.name == "" {
		names = defaultNames
	}
	if s, ref, ok := verify(c.value, c.isBearer, names, secrets); ok {
		v.id = ref.ID
		v.valid(c.value, s, ref)
		return
	}
	// What would have to be different for the signature to be valid?
	for _, isBearer := range []bool{false, true} {
		if _, _, ok := verify(c.value, isBearer, defaultNames, secrets); ok {
			v.say(markBad, "the signature is valid for %s and not for %s: a token is valid only where it was issued, and after a change of Options.Cookie.Name or Options.Bearer users log in again", carrierOf(isBearer, ""), carrierOf(c.isBearer, c.name))
			return
		}
	}
	switch {
	case strings.ContainsAny(c.value, `"'`):
		v.say(markBad, "the token has quotes around it: what the browser sends has none, so a proxy or client adds them")
	case strings.Contains(c.value, "%"):
		v.say(markBad, "the token contains a %%, which no token does: a proxy or client has encoded it")
	case !isToken(c.value), !isWhole(c.value, secrets):
		v.say(markBad, "this is no token of this package, or a damaged one: it has %d characters, and a whole token has 118, all letters, digits, - or _; it was cut off, or is another program's cookie", len(c.value))
	default:
		v.say(markBad, "no secret verifies the signature (%s): the token was signed by another secret or for another cookie name (-cookie-name), or a character was changed", labels(secrets))
	}
}

// carrierOf names where a token travels.
func carrierOf(isBearer bool, name string) string {
	switch {
	case isBearer:
		return "the header Authorization (Options.Bearer)"
	case name == "":
		return "a cookie of a default name"
	}
	return "the cookie " + plain(name)
}

// verify tries all secrets for the places that a token may be for.
func verify(value string, isBearer bool, names []string, secrets []secret) (by secret, ref token.Ref, ok bool) {
	purpose := "cookie"
	if isBearer {
		purpose, names = "header", []string{tokenHeader}
	}
	for _, s := range secrets {
		for _, name := range names {
			signer, err := token.NewSigner(purpose, name, [][]byte{s.bytes})
			if err != nil {
				continue
			}
			if ref, ok := signer.Verify(value); ok {
				return s, ref, true
			}
		}
	}
	return secret{}, token.Ref{}, false
}

// valid reports a valid signature.
func (v *verdict) valid(value string, by secret, ref token.Ref) {
	at, _ := token.SignedAt(value)
	v.key = ref.Key
	v.say(markOK, "the signature is valid, by %s; the token was issued %s for session %s", by.label, when(at, time.Now()), ref.ID)
	if at.After(time.Now().Add(maxSkew)) {
		v.say(markBad, "it was issued in the future: the clock of this machine is behind, or that of the machine that issued it is ahead; set both by NTP")
	}
	if by.problem != "" {
		v.say(markBad, "%s", by.problem)
	}
	if by.isOlder {
		v.say(markNote, "%s is an older secret: keep it until Manager.SecretUses shows that it verifies no more tokens", by.label)
	}
}

// record examines the record of the session. A nil t means that there is no store.
func (p *program) record(ctx context.Context, t *target, v *verdict) error {
	if t == nil {
		v.say(markUnseen, "whether the session is live: give its store by -store or -store-env")
		v.works = v.count(markBad) == 0
		return nil
	}
	rec, err := p.load(ctx, t, v.id)
	if err != nil {
		return err
	}
	now := time.Now()
	if rec == nil {
		v.say(markBad, "the store has no session %s: it has expired, or it ended more than a minute ago, or the store has lost it (check), or it is in another store. %s", v.id, t.hint())
		return nil
	}
	if e, ok := body.EndingOf(rec.Data); ok {
		v.say(markBad, "the session has ended, by %s, %s", reason(e.Reason), when(e.At, now))
		if e.Next != "" {
			v.say(markNote, "the login began session %s, whose cookie the browser should have: if it sends this one, the response of the login was lost", plain(e.Next))
		}
		return nil
	}
	v.live(rec, now)
	v.works = v.count(markBad) == 0
	return nil
}

// live examines the record of a live session.
func (v *verdict) live(rec *session.Record, now time.Time) {
	who := "of " + plain(rec.User) + ", who logged in "
	if rec.User == "" {
		who = "anonymous, created "
	}
	v.say(markOK, "the session is live: %s%s, last seen %s", who, when(rec.Created, now), when(rec.LastSeen, now))
	v.say(markOK, "it expires %s unless used, and ends %s, used or not", when(rec.Expires, now), when(rec.Deadline, now))
	if ahead := later(rec.Created, rec.LastSeen).Sub(now); ahead > maxSkew {
		v.say(markNote, "the session was used %s in the future: the clocks of the machines differ; set all by NTP", span(ahead))
	}
	frozen, isFrozen := body.FrozenFor(rec.Data, v.key, now)
	switch {
	case !body.HasKey(rec.Data):
		v.say(markBad, "the record has no key: it is damaged, or another program's (Options.Tokens)")
	case body.IsCurrent(rec.Data, v.key):
		v.say(markOK, "the key is the current one")
	case body.HasAccess(rec.Data, v.key, now):
		v.say(markOK, "the key is superseded and still valid: a newer token was issued, and the browser has not sent it yet, or did so seconds ago")
	case isFrozen:
		v.say(markOK, "the key was replaced by Renew, Remember or a login, and until %s a request with it sees the session as it was before", when(frozen.Until, now))
	default:
		v.say(markBad, "the token was replaced, and the session goes on with a newer one (ErrReplaced, event replayed): a request that is late, a browser that lost the response with the newer cookie, or somebody who has copied the old one; if the user did not log in or renew, revoke the session")
	}
	if from := body.BoundFrom(rec.Data); !from.IsZero() {
		v.say(markUnseen, "the session is bound to its browser since %s (Options.DeviceBound): a request needs the browser's second cookie too, which this command does not examine", when(from, now))
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
