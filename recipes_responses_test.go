package session_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sessiontest"
)

// site serves assets outside the check for a user.
func site(sessions *session.Manager, assets, pages http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /assets/", assets) // never calls session.From
	mux.Handle("/", sessions.RequireUser(pages, http.RedirectHandler("/login", http.StatusSeeOther)))
	return mux
}

// revalidated lets browsers cache files, and revalidate them before each use.
func revalidated(files http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "private, no-cache")
		files.ServeHTTP(w, r)
	})
}

// TestRecipeStaticFiles requests a page and its files concurrently.
func TestRecipeStaticFiles(t *testing.T) {
	const n = 5 // requests for each path
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy})
	yesterday := time.Now().Add(-day)
	files := http.FileServerFS(fstest.MapFS{
		"assets/app.js":    {Data: []byte("script"), ModTime: yesterday},
		"pages/start":      {Data: []byte("page"), ModTime: yesterday},
		"files/report.pdf": {Data: []byte("report"), ModTime: yesterday},
	})
	pages := http.NewServeMux()
	pages.Handle("/pages/", files)
	pages.Handle("/files/", revalidated(files))
	paths := []string{"/assets/app.js", "/pages/start", "/files/report.pdf"}
	var arrived sync.WaitGroup
	arrived.Add(len(paths) * n)
	app := m.Handler(site(m, files, pages))
	b := sessiontest.NewBrowser(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Overlap") != "" {
			arrived.Done()
			arrived.Wait()
		}
		app.ServeHTTP(w, r)
	}))
	for i, want := range []int{http.StatusOK, http.StatusSeeOther, http.StatusSeeOther} {
		if got := b.Get(paths[i]).StatusCode; got != want {
			t.Errorf("%s without a user: %d, want %d", paths[i], got, want)
		}
	}
	b.Session(m, func(s *session.Session) { s.Login("ann") })
	spy.forget()
	atOnce(len(paths)*n, func(i int) {
		path := paths[i%len(paths)]
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Overlap", "yes")
		r.Header.Set("If-Modified-Since", yesterday.Add(time.Second).UTC().Format(http.TimeFormat))
		resp := b.Do(r)
		got := fmt.Sprintf("%d %q %q", resp.StatusCode, resp.Header.Get("Cache-Control"), resp.Header.Get("Vary"))
		want := map[string]string{
			"/assets/app.js":    `304 "" ""`,
			"/pages/start":      `304 "no-store" "Cookie"`, // no browser has anything to compare
			"/files/report.pdf": `304 "private, no-cache" "Cookie"`,
		}[path]
		if got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	})
	if got := spy.count("Load"); got != 2*n {
		t.Errorf("%d loads, want %d: none for assets", got, 2*n)
	}
}

// limited limits the size of request bodies.
func limited(sessions *session.Manager, next http.Handler) http.Handler {
	return http.MaxBytesHandler(sessions.Handler(next), 1<<10)
}

// TestRecipeMaxBytesHandler sends concurrent requests with bodies within the limit and beyond
// it.
func TestRecipeMaxBytesHandler(t *testing.T) {
	const n = 5 // of each kind
	for where, around := range map[string]func(m *session.Manager, next http.Handler) http.Handler{
		"around": limited,
		"inside": func(m *session.Manager, next http.Handler) http.Handler { // why it belongs around
			return m.Handler(http.MaxBytesHandler(next, 1<<10))
		},
	} {
		m := newManager(t, session.Options{})
		mux := http.NewServeMux()
		mux.HandleFunc("/write/{i}", func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.ReadAll(r.Body); err != nil {
				http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
				return
			}
			writing(w, r)
		})
		h := around(m, overlap(2*n, mux))
		srv := startServer(t, "HTTP/1.1", h)
		cookie := open(t, m, "ann")
		atOnce(2*n, func(i int) {
			r := request(t, fmt.Sprint(srv.URL, "/write/", i), cookie)
			size, want, closed := 1<<10, http.StatusOK, false
			if i >= n {
				size, want, closed = 1<<10+1, http.StatusRequestEntityTooLarge, where == "around"
			}
			r.Method, r.Body, r.ContentLength = "POST", io.NopCloser(strings.NewReader(strings.Repeat("x", size))), int64(size)
			resp, err := srv.Client().Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			if resp.StatusCode != want || resp.Close != closed {
				t.Errorf("%s, %d bytes: %s, closed %v; want %d, %v", where, size, resp.Status, resp.Close, want, closed)
			}
		})
		newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			for i := range 2 * n {
				if _, ok := keyOfRequest(i).Lookup(s); ok != (i < n) {
					t.Errorf("%s: request %d wrote: %v", where, i, ok)
				}
			}
		}})).replay(cookie).get("/")
	}
}

// upstream forwards requests to another server, without the cookie named name.
func upstream(to *url.URL, name string) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.SetXForwarded()
			r.Out.Host = r.In.Host
			r.Out.Header["Cookie"] = withoutCookie(r.In.Header["Cookie"], name)
		},
		ModifyResponse: func(resp *http.Response) error {
			resp.Header["Set-Cookie"] = slices.DeleteFunc(resp.Header["Set-Cookie"], isCookie(name))
			return nil
		},
	}
}

// withoutCookie returns the lines of a Cookie header without the cookies named name. The other
// cookies are unchanged.
func withoutCookie(lines []string, name string) (rest []string) {
	for _, line := range lines {
		pairs := slices.DeleteFunc(strings.Split(line, ";"), isCookie(name))
		if len(pairs) > 0 {
			rest = append(rest, strings.TrimSpace(strings.Join(pairs, ";")))
		}
	}
	return rest
}

// isCookie returns a function that reports whether a pair of Cookie, or a line of Set-Cookie,
// is of the cookie named name.
func isCookie(name string) func(pair string) bool {
	return func(pair string) bool {
		n, _, _ := strings.Cut(pair, "=")
		return strings.Trim(n, " \t") == name
	}
}

// TestRecipeReverseProxy sends concurrent requests of one session that write to it and are
// forwarded.
func TestRecipeReverseProxy(t *testing.T) {
	const n = 10
	m := newManager(t, session.Options{})
	var mu sync.Mutex
	var seen []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, strings.Join(r.Header["Cookie"], " and "))
		mu.Unlock()
		w.Header().Add("Set-Cookie", "__Host-Http-session=; Path=/; Secure; Max-Age=0") // would log the user out
		w.Header().Add("Set-Cookie", "seen=yes; Path=/")
	}))
	t.Cleanup(other.Close)
	to, err := url.Parse(other.URL)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	proxy := upstream(to, "__Host-Http-session")
	mux.Handle("/write/{i}", overlap(n, m.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writing(w, r)
		proxy.ServeHTTP(w, r)
	}), nil)))
	b := sessiontest.NewBrowser(t, m.Handler(mux))
	b.Session(m, func(s *session.Session) { s.Login("ann") })
	atOnce(n, func(i int) {
		r := httptest.NewRequest("GET", fmt.Sprint("/write/", i), nil)
		r.Header.Set("Cookie", `a=1; odd="x, y" z;b=2`)
		resp := b.Do(r)
		if got := strings.Join(resp.Header["Set-Cookie"], " and "); resp.StatusCode != http.StatusOK || got != "seen=yes; Path=/" {
			t.Errorf("%s sets %q", resp.Status, got)
		}
	})
	for _, got := range seen {
		if others := strings.TrimSuffix(got, "; seen=yes"); others != `a=1; odd="x, y" z;b=2` {
			t.Errorf("the other server received %q", got)
		}
	}
	if len(seen) != n {
		t.Errorf("%d requests were passed on, want %d", len(seen), n)
	}
	wrote(t, b, m, "ann", n)
	for line, want := range map[string]string{
		"__Host-Http-session=t":        "",
		" \t__Host-Http-session \t= t": "",
		"__Host-Http-session":          "",
		"__Host-Http-session=t; a=1; __Host-Http-session=u;__Host-Http-session=": "a=1",
		"a=__Host-Http-session=t; __Host-Http-sessions=1; session=2":             "a=__Host-Http-session=t; __Host-Http-sessions=1; session=2",
		"a=1;;b=2;": "a=1;;b=2;",
	} {
		if got := strings.Join(withoutCookie([]string{line}, "__Host-Http-session"), " and "); got != want {
			t.Errorf("%q: %q is left, want %q", line, got, want)
		}
	}
}

// account answers browsers and apps.
func account(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	if s.User() == "" {
		w.Header().Set("WWW-Authenticate", `Bearer realm="account", Cookie realm="account"`)
		http.Error(w, "Please log in.", http.StatusUnauthorized)
		return
	}
	fmt.Fprint(w, s.User())
}

// TestRecipeUnauthorized sends concurrent requests of browsers and apps, with and without a
// user.
func TestRecipeUnauthorized(t *testing.T) {
	const n = 3 // of each kind
	memory := sessiontest.NewStore(nil)
	browsers := newManager(t, session.Options{Store: memory})
	apps := newManager(t, session.Options{Store: memory, Bearer: true})
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Login("ann") })
	mux.Handle("/account", overlap(4*n, http.HandlerFunc(account)))
	mux.HandleFunc("/outage", account)
	h := browsersAndApps(browsers, apps, mux)
	known, unknown := sessiontest.NewBrowser(t, h), sessiontest.NewBrowser(t, h)
	app := &app{h: h}
	known.Get("/login")
	app.get("/login")
	ask := func(b *sessiontest.Browser, path, token string) *http.Response {
		r := httptest.NewRequest("GET", path, nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		return b.Do(r)
	}
	atOnce(4*n, func(i int) {
		b, token := []*sessiontest.Browser{known, unknown, unknown, unknown}[i%4], []string{"", "", app.token, "none"}[i%4]
		want, challenge := http.StatusOK, ""
		if i%2 == 1 {
			want, challenge = http.StatusUnauthorized, `Bearer realm="account", Cookie realm="account"`
		}
		resp := ask(b, "/account", token)
		if got := resp.Header.Get("WWW-Authenticate"); resp.StatusCode != want || got != challenge {
			t.Errorf("%d: %s with the challenge %q, want %d with %q", i%4, resp.Status, got, want, challenge)
		}
	})
	memory.Fail(errDown)
	for _, token := range []string{"", app.token} { // in an outage it is not known whether a user is logged in
		if resp := ask(known, "/outage", token); resp.StatusCode != http.StatusServiceUnavailable || resp.Header["Www-Authenticate"] != nil {
			t.Errorf("in an outage: %s with the challenge %q", resp.Status, resp.Header["Www-Authenticate"])
		}
	}
}
