package migrate

import (
	"context"
	"net/http"
	"net/http/httptest"

	"github.com/coatcheck/session"
)

// TakeForTest takes a value over into a session of its own.
func TakeForTest(v Value, old any) (err error) {
	m := session.Must(session.New(nil))
	m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if err = v.take(session.From(r.Context()), old); err == nil {
			err = session.From(r.Context()).Save(context.Background())
		}
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "https://example.test/", nil))
	return err
}
