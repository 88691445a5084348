package site

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coatcheck/session"
)

// A deviceRow is one of the user's sessions, as the page shows it.
type deviceRow struct {
	ID, Name           string
	Current            bool
	LoggedIn, LastSeen moment
	Expires            moment
}

// A moment is a time in words, and exactly.
type moment struct {
	Words string
	At    time.Time
}

// devices lists the user's sessions, this one first. When another was last seen
// is known to 1/20 of the idle timeout, three minutes here.
func (a app) devices(r *http.Request, s *session.Session) ([]deviceRow, error) {
	all, err := a.sessions.List(r.Context(), s.User())
	if err != nil {
		return nil, err
	}
	now := time.Now()
	rows := make([]deviceRow, len(all))
	for i, d := range all {
		rows[i] = deviceRow{
			ID: d.ID(), Name: device.Get(d), Current: d.ID() == s.ID(),
			LoggedIn: moment{ago(now.Sub(d.AuthTime())), d.AuthTime()},
			LastSeen: moment{ago(now.Sub(d.LastSeen())), d.LastSeen()},
			Expires:  moment{"in " + span(d.Expires().Sub(now)), d.Expires()},
		}
		if rows[i].Current {
			rows[i].LastSeen = moment{"now", now}
		}
	}
	slices.SortStableFunc(rows, func(a, b deviceRow) int {
		switch {
		case a.Current:
			return -1
		case b.Current:
			return 1
		}
		return 0
	})
	return rows, nil
}

// revoke ends the session that a button of the list belongs to. Whose it is
// need not be checked: Revoke ends none but the user's own.
func (a app) revoke(w http.ResponseWriter, r *http.Request, s *session.Session) {
	if err := parseForm(w, r); err != nil {
		answer(w, r, http.StatusBadRequest, "That form could not be read.")
		return
	}
	id := r.PostFormValue("id")
	if id == s.ID() {
		a.logout(w, r, s) // which takes the cookie back, too
		return
	}
	recently(func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		if err := a.sessions.Revoke(r.Context(), s.User(), id); err != nil {
			unavailable(w, r, err)
			return
		}
		done(w, r, s, "/dashboard", "That device is signed out.")
	})(w, r, s)
}

// recently lets users end other sessions of theirs only if they have logged in within
// the last five minutes (ASVS 5, 7.5.2): a session that was left open must not sign
// out its owner everywhere else.
func recently(next func(http.ResponseWriter, *http.Request, *session.Session)) func(http.ResponseWriter, *http.Request, *session.Session) {
	return func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		switch {
		case time.Since(s.AuthTime()) <= 5*time.Minute:
			next(w, r, s)
		case wantsHTML(r):
			http.Redirect(w, r, "/confirm", http.StatusSeeOther)
		default:
			text(w, http.StatusForbidden, "Please log in again first.")
		}
	}
}

func (a app) confirmForm(w http.ResponseWriter, r *http.Request, s *session.Session) {
	render(w, http.StatusOK, page{User: s.User(), Confirm: true})
}

// confirm is where a real program checks the password. It leads back to the buttons,
// because a redirect loses a form that was posted.
func (a app) confirm(w http.ResponseWriter, r *http.Request, s *session.Session) {
	s.Login(s.User())
	done(w, r, s, "/dashboard", "Thank you. Now sign out what you like: you are not asked again for five minutes.")
}

func (a app) revokeOthers(w http.ResponseWriter, r *http.Request, s *session.Session) {
	if err := a.sessions.RevokeOthers(r.Context(), s); err != nil {
		unavailable(w, r, err)
		return
	}
	done(w, r, s, "/dashboard", "All your other devices are signed out.")
}

// revokeAll signs out everywhere, here last: if the store fails halfway, this
// device is still there to try again. Where no session is at hand, as behind
// the link of a forgotten password, it is Manager.RevokeAll.
func (a app) revokeAll(w http.ResponseWriter, r *http.Request, s *session.Session) {
	if err := a.sessions.RevokeOthers(r.Context(), s); err != nil {
		unavailable(w, r, err)
		return
	}
	s.Logout()
	done(w, r, s, "/login", "You are signed out everywhere.")
}

// describe makes of a User-Agent what a person would call the device. The
// order matters: browsers claim to be one another.
func describe(agent string) string {
	first := func(names ...string) string { // pairs: what to look for, what to say
		for i := 0; i < len(names); i += 2 {
			if strings.Contains(agent, names[i]) {
				return names[i+1]
			}
		}
		return ""
	}
	browser := first("Edg", "Edge", "OPR/", "Opera", "SamsungBrowser/", "Samsung Internet", "Firefox/", "Firefox",
		"FxiOS/", "Firefox", "CriOS/", "Chrome", "Chrome/", "Chrome", "Safari/", "Safari")
	system := first("iPhone", "iPhone", "iPad", "iPad", "Android", "Android", "Windows", "Windows",
		"Mac OS X", "Mac", "CrOS", "ChromeOS", "Linux", "Linux")
	if browser == "" {
		tool, _, _ := strings.Cut(agent, "/")
		if !presentable(tool) || tool == "" || tool == "Mozilla" {
			tool = "Unknown client"
		}
		browser = tool
	}
	if system == "" {
		return browser
	}
	return browser + " on " + system
}

// ago says how long ago something was, as exactly as a person wants it.
func ago(d time.Duration) string {
	if d < time.Minute {
		return "just now"
	}
	return span(d) + " ago"
}

// span says how long something takes, in its largest unit.
func span(d time.Duration) string {
	unit, n := "minute", d.Round(time.Minute)/time.Minute
	switch {
	case d >= 47*time.Hour:
		unit, n = "day", d.Round(24*time.Hour)/(24*time.Hour)
	case d >= 90*time.Minute:
		unit, n = "hour", d.Round(time.Hour)/time.Hour
	case d < time.Minute:
		return "less than a minute"
	}
	if n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}
