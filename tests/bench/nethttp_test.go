package bench

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/coatcheck/session"
	"github.com/coatcheck/session/gorillastore"
	gorilla "github.com/gorilla/sessions"
	icza "github.com/icza/session"
)

const small = "0123456789abcdef"

var (
	big    = strings.Repeat("x", 4096)
	ok     = []byte("ok")
	secret = []byte("0123456789abcdef0123456789abcdef")
)

// httpApp serves with an http.Handler.
type httpApp struct{ h, bare http.Handler }

// discard is a ResponseWriter without cost.
type discard struct {
	h      http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

func (a httpApp) visitor(path string, cookies ...string) func(int) bool {
	request := httptest.NewRequest("GET", "https://localhost"+path, nil)
	header := []string{""}
	if cookies[0] != "" {
		request.Header["Cookie"] = header
	}
	h := a.h
	if path == "/bare" {
		h = a.bare
	}
	w, r := &discard{h: http.Header{}}, new(http.Request)
	return func(i int) bool {
		*r = *request // because gorilla/sessions changes the request
		header[0] = cookies[i]
		w.status = http.StatusOK
		clear(w.h)
		h.ServeHTTP(w, r)
		return w.status == http.StatusOK
	}
}

func (a httpApp) cookie(path string) string {
	w := httptest.NewRecorder()
	a.h.ServeHTTP(w, httptest.NewRequest("GET", "https://localhost"+path, nil))
	return strings.SplitN(w.Header().Get("Set-Cookie"), ";", 2)[0]
}

func (a httpApp) serve(l net.Listener) error {
	mux := http.NewServeMux()
	page := func(path string, h http.Handler) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			h.ServeHTTP(w, r)
		})
	}
	page("/", a.h)
	page("/bare", a.bare)
	return http.Serve(l, mux)
}

// pages are the pages of an httpApp. fill sets the three values and a blob, if it is not empty;
// read reports whether it found the name.
type pages struct {
	fill  func(w http.ResponseWriter, r *http.Request, blob string)
	read  func(w http.ResponseWriter, r *http.Request) bool
	write func(w http.ResponseWriter, r *http.Request)
	start func(w http.ResponseWriter, r *http.Request)
}

func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	right := true
	switch r.URL.Path {
	case "/empty":
	case "/fill":
		p.fill(w, r, "")
	case "/big":
		p.fill(w, r, big)
	case "/read":
		right = p.read(w, r)
	case "/forged":
		right = !p.read(w, r)
	case "/write":
		p.write(w, r)
	case "/new":
		p.start(w, r)
	default:
		right = false
	}
	if !right {
		w.WriteHeader(http.StatusTeapot)
	}
	w.Write(ok)
}

func newHTTPApp(wrap func(http.Handler) http.Handler, cookieName string, p *pages) app {
	var h http.Handler = p
	if wrap != nil {
		h = wrap(h)
	}
	return httpApp{h, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := r.Cookie(cookieName); err != nil {
			w.WriteHeader(http.StatusTeapot)
		}
		w.Write(ok)
	})}
}

func newOurs(string) app {
	var (
		name  = session.NewKey[string]("name")
		admin = session.NewKey[bool]("admin")
		count = session.NewKey[int]("count")
		blob  = session.NewKey[string]("blob")
	)
	sessions := session.Must(session.New(nil))
	return newHTTPApp(sessions.Handler, "__Host-Http-session", &pages{
		fill: func(w http.ResponseWriter, r *http.Request, b string) {
			s := session.From(r.Context())
			name.Set(s, small)
			admin.Set(s, true)
			count.Set(s, 12345)
			if b != "" {
				blob.Set(s, b)
			}
		},
		read: func(w http.ResponseWriter, r *http.Request) bool {
			return name.Get(session.From(r.Context())) != ""
		},
		write: func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			count.Set(s, count.Get(s)+1)
		},
		start: func(w http.ResponseWriter, r *http.Request) {
			name.Set(session.From(r.Context()), small)
		},
	})
}

func newSCS(string) app {
	m := scs.New()
	m.Lifetime = 24 * time.Hour
	return newHTTPApp(m.LoadAndSave, "session", &pages{
		fill: func(w http.ResponseWriter, r *http.Request, b string) {
			m.Put(r.Context(), "name", small)
			m.Put(r.Context(), "admin", true)
			m.Put(r.Context(), "count", 12345)
			if b != "" {
				m.Put(r.Context(), "blob", b)
			}
		},
		read: func(w http.ResponseWriter, r *http.Request) bool {
			return m.GetString(r.Context(), "name") != ""
		},
		write: func(w http.ResponseWriter, r *http.Request) {
			m.Put(r.Context(), "count", m.GetInt(r.Context(), "count")+1)
		},
		start: func(w http.ResponseWriter, r *http.Request) {
			m.Put(r.Context(), "name", small)
		},
	})
}

func newGorillaCookies(string) app {
	return newGorilla(nil, "session-name", gorilla.NewCookieStore(secret))
}

func newGorillastore(string) app {
	m := session.Must(session.New(nil))
	return newGorilla(m.Handler, "__Host-Http-session", gorillastore.New(m, nil))
}

func newGorillaFiles(dir string) app {
	store := gorilla.NewFilesystemStore(dir, secret)
	store.MaxLength(16 << 10) // allows the value of 4 KB
	return newGorilla(nil, "session-name", store)
}

func newGorilla(wrap func(http.Handler) http.Handler, cookieName string, store gorilla.Store) app {
	save := func(w http.ResponseWriter, r *http.Request, s *gorilla.Session) {
		if err := s.Save(r, w); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
	return newHTTPApp(wrap, cookieName, &pages{
		fill: func(w http.ResponseWriter, r *http.Request, b string) {
			s, _ := store.Get(r, "session-name")
			s.Values["name"] = small
			s.Values["admin"] = true
			s.Values["count"] = 12345
			if b != "" {
				s.Values["blob"] = b
			}
			save(w, r, s)
		},
		read: func(w http.ResponseWriter, r *http.Request) bool {
			s, _ := store.Get(r, "session-name")
			name, _ := s.Values["name"].(string)
			return name != ""
		},
		write: func(w http.ResponseWriter, r *http.Request) {
			s, _ := store.Get(r, "session-name")
			count, _ := s.Values["count"].(int)
			s.Values["count"] = count + 1
			save(w, r, s)
		},
		start: func(w http.ResponseWriter, r *http.Request) {
			s, _ := store.Get(r, "session-name")
			s.Values["name"] = small
			save(w, r, s)
		},
	})
}

func newIcza(string) app {
	m := icza.NewCookieManager(icza.NewInMemStoreOptions(&icza.InMemStoreOptions{Logger: icza.NoopLogger}))
	return newHTTPApp(nil, "sessid", &pages{
		fill: func(w http.ResponseWriter, r *http.Request, b string) {
			s := icza.NewSession()
			s.SetAttr("name", small)
			s.SetAttr("admin", true)
			s.SetAttr("count", 12345)
			if b != "" {
				s.SetAttr("blob", b)
			}
			m.Add(s, w)
		},
		read: func(w http.ResponseWriter, r *http.Request) bool {
			s := m.Get(r)
			if s == nil {
				return false
			}
			name, _ := s.Attr("name").(string)
			return name != ""
		},
		write: func(w http.ResponseWriter, r *http.Request) {
			s := m.Get(r)
			count, _ := s.Attr("count").(int)
			s.SetAttr("count", count+1)
		},
		start: func(w http.ResponseWriter, r *http.Request) {
			s := icza.NewSession()
			s.SetAttr("name", small)
			m.Add(s, w)
		},
	})
}
