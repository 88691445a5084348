package expressjs_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session/expressjs"
	"github.com/coatcheck/session/internal/testing/browsers"
)

// A visitor is a browser whose time is the clock of the test.
type visitor struct {
	p    *pair
	door func(path string) (at string) // returns the side that serves a route

	now    time.Duration // time on the clock of the test
	cookie string
	ends   time.Duration // end of the cookie
	n      int           // value of the last write
}

// get sends a request, with the cookie if it has not expired.
func (v *visitor) get(path string) string {
	v.p.t.Helper()
	route, _, _ := strings.Cut(path, "?")
	r, err := http.NewRequest("GET", v.door(route)+path, nil)
	if err != nil {
		v.p.t.Fatal(err)
	}
	if v.cookie != "" && v.now < v.ends {
		r.Header.Set("Cookie", v.cookie)
	}
	start := time.Now()
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		v.p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		v.p.t.Errorf("%s: %s\n%s", path, resp.Status, body)
	}
	for _, c := range resp.Cookies() {
		v.cookie = c.Name + "=" + c.Value
		switch {
		case c.MaxAge > 0:
			v.ends = v.now + time.Duration(c.MaxAge)*time.Second
		case c.MaxAge < 0:
			v.cookie = ""
		default:
			v.ends = v.now + c.Expires.Sub(start)
		}
	}
	return string(body)
}

// isIn reports whether the visitor is logged in, and the session has the value of the last write.
func (v *visitor) isIn(user string) bool {
	v.p.t.Helper()
	var a answer
	if err := json.Unmarshal([]byte(v.get("/get")), &a); err != nil {
		v.p.t.Error(err)
	}
	n, _ := a.Values["n"].(float64)
	return a.User == user && int(n) == v.n
}

func (v *visitor) write() {
	v.p.t.Helper()
	v.n++
	v.get("/set?values=" + url.QueryEscape(fmt.Sprintf(`{"n":%d}`, v.n)))
}

// TestWalkInFourSteps moves a small app with rolling: true in four steps. The users send a request
// every quarter of maxAge: some only read, some write, and some do both. The test checks that none
// of them is logged out at any step, and that a user without a request for longer than maxAge is.
func TestWalkInFourSteps(t *testing.T) {
	const maxAge = 4 * time.Hour // on the clock of the test
	steps := []struct {
		name  string
		moved []string // routes
	}{
		{"1. doctor", nil},
		{"2. proxy in front", nil},
		{"3. a route that reads", []string{"/get"}},
		{"3. routes that read and write", []string{"/get", "/set"}},
		{"3. routes that log in and out", []string{"/get", "/set", "/login", "/destroy"}},
		{"3. routes moved back", []string{"/get"}},
		{"4. Node off", []string{"/get", "/set", "/login", "/destroy"}},
	}
	for name, x := range versions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var pass clock
			x.env = append(slices.Clone(x.env), "ROLLING=true")
			x.options = expressjs.Options{Passport: true, Cookie: expressjs.Cookie{MaxAge: maxAge}}
			x.store = clocked(strings.Contains(name, "pg-simple"), &pass)
			x.lifetime = 30 * 24 * time.Hour
			p := x.start(t)
			var now time.Duration
			users := map[string]*visitor{}
			for i, step := range steps {
				door := func(path string) string {
					if slices.Contains(step.moved, path) {
						return p.golang
					}
					if strings.HasPrefix(step.name, "4") {
						t.Errorf("%s: Node got a request for %s", step.name, path)
					}
					return p.node
				}
				for _, v := range users {
					v.door = door
				}
				for _, does := range []string{"reads", "writes", "both", "leaves"} {
					user := fmt.Sprint(does, i)
					users[user] = &visitor{p: p, door: door, now: now}
					users[user].get("/login?user=" + user)
				}
				for tick := range 6 {
					now += maxAge / 4
					pass(maxAge / 4)
					for user, v := range users {
						v.now = now
						does := strings.TrimRight(user, "0123456789")
						if does == "leaves" {
							continue
						}
						if does == "writes" || does == "both" && tick%2 == 0 {
							v.write()
							if does == "writes" && tick < 5 {
								continue // these users never read
							}
						}
						if !v.isIn(user) {
							t.Errorf("%s: %s is logged out after %v, %v after the login or the step", step.name, user, now, time.Duration(tick+1)*maxAge/4)
							delete(users, user)
						}
					}
				}
				for user, v := range users {
					if strings.HasPrefix(user, "leaves") {
						v.ends = now + 1 // a copy of the cookie, without its end
						if v.isIn(user) {
							t.Errorf("%s: %s is still logged in after more than maxAge without a request", step.name, user)
						}
						delete(users, user)
					}
				}
			}
			for user, v := range users {
				if v.get("/destroy"); v.isIn(user) {
					t.Errorf("%s is still logged in after the logout", user)
				}
			}
		})
	}
}

// TestLateRequestsOfExpress checks a request of Express that had loaded its session before Go ended
// it, and writes it again after a minute, an hour, or a day, as a slow upload or a socket may. The
// session stays anonymous on both sides, after each such request.
func TestLateRequestsOfExpress(t *testing.T) {
	for name, x := range versions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var pass clock
			x.options = expressjs.Options{Passport: true, Cookie: expressjs.Cookie{MaxAge: 24 * time.Hour}}
			x.store = clocked(strings.Contains(name, "pg-simple"), &pass)
			p := x.start(t)
			ends := map[string]func(){
				"logout": func() { p.do(p.golang, "/destroy") },
				"RevokeAll": func() {
					if err := p.m.RevokeAll(t.Context(), "ann"); err != nil {
						t.Error(err)
					}
				},
			}
			for side, begins := range map[string]string{"Go": p.golang, "Express": p.node} {
				for how, end := range ends {
					for _, late := range []time.Duration{61 * time.Second, time.Hour, 24*time.Hour + 30*time.Minute} {
						what := fmt.Sprintf("logged in at %s, ended by %s, %v late", side, how, late)
						p.do(begins, "/login?user=ann")
						if a := p.get(p.golang); a.User != "ann" {
							t.Fatalf("%s: after the login the user is %v", what, a.User)
						}
						u, _ := url.Parse(p.node)
						stolen := p.browser.Jar.Cookies(u)
						expectAnonymous := func() {
							t.Helper()
							p.browser.Jar.SetCookies(u, stolen)
							if a := p.get(p.golang); a.ID != "" || a.User != "" {
								t.Errorf("%s: at Go the user is %v", what, a.User)
							}
							if a := p.get(p.node); a.User != nil || len(a.Values) > 0 {
								t.Errorf("%s: at Express the user is %v, the values %v", what, a.User, a.Values)
							}
						}
						p.slow(p.node, `{"late":2}`, func() {
							p.slow(p.node, `{"late":1}`, func() {
								end()
								pass(late)
							})
							expectAnonymous()
							pass(late) // the time starts again when Go has seen the record
						})
						expectAnonymous()
						p.browser = browsers.New(t, nil).WithoutRedirects()
					}
				}
			}
		})
	}
}

// TestChangedMaxAge checks that the last maxAge that Express has set is the idle timeout and the
// life of the cookie while only Go uses the session.
func TestChangedMaxAge(t *testing.T) {
	for name, x := range versions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var pass clock
			x.env = append(slices.Clone(x.env), "ROLLING=true")
			x.options = expressjs.Options{Passport: true, Cookie: expressjs.Cookie{MaxAge: 24 * time.Hour}}
			x.store = clocked(strings.Contains(name, "pg-simple"), &pass)
			x.lifetime = 300 * 24 * time.Hour
			p := x.start(t)
			for _, begins := range []string{p.golang, p.node} {
				for _, use := range []string{"/get", "/set?values=" + url.QueryEscape(`{"z":1}`)} {
					v := &visitor{p: p, door: func(string) string { return begins }}
					v.get("/login?user=ann")
					for _, age := range []time.Duration{24 * time.Hour, 5 * time.Minute, 30 * 24 * time.Hour, time.Hour} {
						v.door = func(string) string { return p.node }
						v.get(fmt.Sprint("/age?ms=", age.Milliseconds()))
						v.door = func(string) string { return p.golang }
						for i := range 5 {
							v.now += age * 2 / 3
							pass(age * 2 / 3)
							v.get(use)
							if !v.isIn("ann") {
								t.Errorf("%v, use %d of %s: logged out", age, i, use)
							}
							if left := v.ends - v.now; left > age+time.Minute || left < age*8/10-2*time.Second {
								t.Errorf("%v, use %d of %s: the cookie has %v left", age, i, use, left)
							}
						}
					}
					v.now += time.Hour + time.Minute
					pass(time.Hour + time.Minute)
					v.ends = v.now + time.Hour
					if v.isIn("ann") {
						t.Errorf("%s: still logged in after an hour without a use", use)
					}
				}
			}
		})
	}
}
