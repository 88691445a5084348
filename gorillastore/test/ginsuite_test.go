package test

import (
	"iter"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/gorillastore"
	ginsessions "github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/tester"
	"github.com/gorilla/sessions"
)

// A suiteStore lets the test suite of gin-contrib/sessions run, which makes its engine itself:
// nothing can wrap it. Get brings the request into Manager.Handler, and Save copies the cookie to
// the response.
type suiteStore struct {
	sessions.Store
	manager *session.Manager
	inside  map[*http.Request]*suiteRequest
}

type suiteRequest struct {
	r   *http.Request // as a handler inside Manager.Handler gets it
	end func()        // lets that handler return
	w   *httptest.ResponseRecorder
}

func (s *suiteStore) Options(ginsessions.Options) {}

func (s *suiteStore) Get(r *http.Request, name string) (*sessions.Session, error) {
	return sessions.GetRegistry(r).Get(s, name)
}

func (s *suiteStore) New(r *http.Request, name string) (*sessions.Session, error) {
	in := s.inside[r]
	if in == nil {
		in = &suiteRequest{w: httptest.NewRecorder()}
		next, end := iter.Pull(func(yield func(*http.Request) bool) {
			s.manager.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { yield(r) })).ServeHTTP(in.w, r)
		})
		in.r, _ = next()
		in.end = end
		s.inside[r] = in
	}
	return s.Store.New(in.r, name)
}

func (s *suiteStore) Save(r *http.Request, w http.ResponseWriter, gs *sessions.Session) error {
	in := s.inside[r]
	if err := s.Store.Save(in.r, in.w, gs); err != nil {
		return err
	}
	in.end()
	w.Header()["Set-Cookie"] = in.w.Header()["Set-Cookie"]
	return nil
}

// tester.Options is left out: it asserts the attributes of the cookie, which are those of the
// Manager.
func TestSuiteOfGinContrib(t *testing.T) {
	newStore := func(t *testing.T) ginsessions.Store {
		manager := session.Must(session.New(nil))
		return &suiteStore{gorillastore.New(manager, nil), manager, map[*http.Request]*suiteRequest{}}
	}
	for name, test := range map[string]func(*testing.T, func(*testing.T) ginsessions.Store){
		"GetSet":    func(t *testing.T, f func(*testing.T) ginsessions.Store) { tester.GetSet(t, f) },
		"DeleteKey": func(t *testing.T, f func(*testing.T) ginsessions.Store) { tester.DeleteKey(t, f) },
		"Flashes":   func(t *testing.T, f func(*testing.T) ginsessions.Store) { tester.Flashes(t, f) },
		"Clear":     func(t *testing.T, f func(*testing.T) ginsessions.Store) { tester.Clear(t, f) },
		"Many":      func(t *testing.T, f func(*testing.T) ginsessions.Store) { tester.Many(t, f) },
	} {
		t.Run(name, func(t *testing.T) { test(t, newStore) })
	}
}
