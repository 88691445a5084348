package site

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coatcheck/session"
)

// deviceRow is one of the user's sessions on the page.
type deviceRow struct {
	ID, Name           string
	Current, Bound     bool
	LoggedIn, LastSeen moment
	Expires            moment
}

// moment is a time in words and in full.
type moment struct {
	Words string
	At    time.Time
}

// devices lists the user's sessions, the current one first. The last use of the others is known
// with a tolerance of 1/20 of the idle timeout, three minutes here.
func (a app) devices(r *http.Request, s *session.Session) ([]deviceRow, error) {
	all, err := a.sessions.List(r.Context(), s.User())
	if err != nil {
		return nil, err
	}
	now := time.Now()
	rows := make([]deviceRow, len(all))
	for i, d := range all {
		rows[i] = deviceRow{
			ID: d.ID, Current: d.ID == s.ID(), Bound: d.DeviceBound,
			LoggedIn: moment{ago(now.Sub(d.Created)), d.Created},
			LastSeen: moment{ago(now.Sub(d.LastSeen)), d.LastSeen},
			Expires:  moment{"in " + span(d.Expires.Sub(now)), d.Expires},
		}
		rows[i].Name, _ = device.Of(d)
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

// revoke ends the session of a row of the list. It need not check the owner: Revoke ends only
// sessions of the given user.
func (a app) revoke(w http.ResponseWriter, r *http.Request, s *session.Session) {
	if err := parseForm(w, r); err != nil {
		answer(w, r, http.StatusBadRequest, "That form could not be read.")
		return
	}
	id := r.PostFormValue("id")
	if id == s.ID() {
		a.logout(w, r, s) // also deletes the cookie
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

// recently restricts the ending of other sessions to users who have logged in within the last
// five minutes (ASVS 5, 7.5.2), so that another person at an unattended device cannot sign its
// owner out everywhere.
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

// confirm logs the user in again. A real program checks the password. It redirects to the page
// with the buttons, because a redirect loses a form that was posted.
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

// revokeAll signs the user out everywhere, on this device last: if the store fails halfway, the
// user can try again here. A handler without a session, such as that of a forgotten password,
// calls Manager.RevokeAll.
func (a app) revokeAll(w http.ResponseWriter, r *http.Request, s *session.Session) {
	if err := a.sessions.RevokeOthers(r.Context(), s); err != nil {
		unavailable(w, r, err)
		return
	}
	s.Logout()
	done(w, r, s, "/login", "You are signed out everywhere.")
}

// describe returns a readable name of the device with this User-Agent. The order matters,
// because browsers claim to be other browsers.
func describe(agent string) string {
	first := func(names ...string) string { // pairs of a text to find and the name to return
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

// ago describes a duration in the past in words.
func ago(d time.Duration) string {
	if d < time.Minute {
		return "just now"
	}
	return span(d) + " ago"
}

// span describes a duration in its largest unit.
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
