package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	sessions "github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
	"github.com/redis/go-redis/v9"
)

// advise prints the options for Go, if session.New accepts them.
func (e *examination) advise(c *content, record []byte) {
	if e.app.prefix == "" {
		return // an empty prefix cannot be shared, and redis has reported it
	}
	o := expressjs.Options{Prefix: e.app.prefix, Table: e.app.table, TTL: e.app.ttl, Cookie: e.cookieOf(c)}
	e.user(&o, expressjs.UserOptions(record))
	name := e.app.cookieName
	if name == "" {
		name = "connect.sid"
	}
	m := sessions.Options{Lifetime: max(30*24*time.Hour, o.Cookie.MaxAge, o.TTL), Cookie: sessions.CookieOptions{Name: name}}
	if err := refused(o, m); err != nil {
		e.problem("Go cannot be configured like the app: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	e.checked = append(e.checked, "that session.New accepts the options")
	e.note("configure Go with these options; session.Options takes the attributes of the cookie from expressjs.Options:")
	e.say("", "%s", source(o))
	e.say("", "session.Options{Tokens: tokens, Store: store, Lifetime: %s, Cookie: session.CookieOptions{Name: %q}}", duration(m.Lifetime), name)
	e.note("Lifetime is the absolute end of a login at Go, 24 hours by default; Express has no such end. It must be at least maxAge")
	if e.app.cookieName == "" {
		e.note(`Cookie.Name must be the name of the cookie at Express, which this command does not know: give "name=value" in place of the value`)
	}
	if o.Cookie.MaxAge > 0 {
		e.note("MaxAge is that of this session. If the app gives some sessions a maxAge of their own (remember me), use the one in session({cookie: …})")
	}
	if c.Cookie.HTTPOnly != nil && !*c.Cookie.HTTPOnly {
		e.note("the app has httpOnly: false. Cookies of Go always have HttpOnly, so scripts cannot read them")
	}
	if c.Cookie.SameSite == nil || c.Cookie.SameSite == false {
		e.note("Express sets its cookie without SameSite, and Go sets Lax: if other sites embed the app, first set sameSite: 'none' in Express")
	}
	if !c.Cookie.Secure {
		e.note("Express sets its cookie without Secure. In production both sides should set Secure (in Express cookie.secure and 'trust proxy')")
	}
}

// refused returns the error of session.New for these options.
func refused(o expressjs.Options, m sessions.Options) error {
	client := redis.NewClient(&redis.Options{}) // never connects: no method is called
	defer client.Close()
	store, err := expressjs.NewRedisStore(client, &o)
	if err != nil {
		return err
	}
	if m.Tokens, err = expressjs.Tokens("secret"); err != nil {
		return err
	}
	m.Store = store
	_, err = sessions.New(&m)
	return err
}

// cookieOf returns the options of the app's cookie.
func (e *examination) cookieOf(c *content) expressjs.Cookie {
	all := expressjs.Cookie{
		MaxAge: c.maxAge(), Path: c.Cookie.Path, Domain: c.Cookie.Domain,
		Insecure: !c.Cookie.Secure, Partitioned: c.Cookie.Partitioned, Priority: strings.ToLower(c.Cookie.Priority),
	}
	switch site := strings.ToLower(fmt.Sprint(c.Cookie.SameSite)); {
	case site == "true":
		all.SameSite = "strict"
	case slices.Contains([]string{"lax", "strict", "none"}, site):
		all.SameSite = site
	}
	return all
}

// user sets the options for the member that names the user, if the record has one.
func (e *examination) user(o *expressjs.Options, all []expressjs.Options) {
	if len(all) == 0 {
		e.cannotSee("who the user is", "no member of the record looks like a user. If a user is logged in in this session, set expressjs.Options.UserMember to the member that names the user: without it User, List and RevokeAll do not know users who have logged in at Express")
		return
	}
	o.Passport, o.UserMember, o.NumericUser = all[0].Passport, all[0].UserMember, all[0].NumericUser
	if len(all) > 1 {
		var others []string
		for _, other := range all[1:] {
			others = append(others, other.UserMember)
		}
		e.note("other members that look like a user: %s. Set expressjs.Options.UserMember to the member from which the app reads the logged-in user", strings.Join(others, ", "))
	}
}

// source returns the options as Go source, without those that have their default value.
func source(o expressjs.Options) string {
	c := fields{}
	c.add(o.Cookie.MaxAge != 0, "MaxAge: %s", duration(o.Cookie.MaxAge))
	c.add(o.Cookie.Path != "" && o.Cookie.Path != "/", "Path: %q", o.Cookie.Path)
	c.add(o.Cookie.Domain != "", "Domain: %q", o.Cookie.Domain)
	c.add(o.Cookie.SameSite != "", "SameSite: %q", o.Cookie.SameSite)
	c.add(o.Cookie.Insecure, "Insecure: true")
	c.add(o.Cookie.Partitioned, "Partitioned: true")
	c.add(o.Cookie.Priority != "", "Priority: %q", o.Cookie.Priority)
	all := fields{}
	all.add(o.Prefix != "sess:", "Prefix: %q", o.Prefix)
	all.add(o.Table != "session", "Table: %q", o.Table)
	all.add(o.TTL != 24*time.Hour, "TTL: %s", duration(o.TTL))
	all.add(o.Passport, "Passport: true")
	all.add(o.UserMember != "", "UserMember: %q", o.UserMember)
	all.add(o.NumericUser, "NumericUser: true")
	all.add(len(c) > 0, "Cookie: expressjs.Cookie{%s}", strings.Join(c, ", "))
	return "expressjs.Options{" + strings.Join(all, ", ") + "}"
}

type fields []string

func (f *fields) add(isSet bool, format string, args ...any) {
	if isSet {
		*f = append(*f, fmt.Sprintf(format, args...))
	}
}

// duration returns a duration as Go source.
func duration(d time.Duration) string {
	for _, unit := range []struct {
		d    time.Duration
		name string
	}{{24 * time.Hour, "24 * time.Hour"}, {time.Hour, "time.Hour"}, {time.Minute, "time.Minute"}, {time.Second, "time.Second"}} {
		if n := d / unit.d; d%unit.d == 0 && n == 1 {
			return unit.name
		} else if d%unit.d == 0 {
			return fmt.Sprintf("%d * %s", n, unit.name)
		}
	}
	return fmt.Sprintf("%d * time.Millisecond", d.Milliseconds())
}
