package around

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sessiontest"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/gorilla/mux"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// count counts the requests of a session. ctx is the context of the request.
func count(ctx context.Context) int {
	var n int
	visits.Update(session.From(ctx), func(was int) int { n = was + 1; return n })
	return n
}

var visits = session.NewKey[int]("visits")

// routers have a route POST /visits each, which calls count.
func routers(t *testing.T) map[string]http.Handler {
	plain := func(w http.ResponseWriter, r *http.Request) { count(r.Context()) }

	std := http.NewServeMux()
	std.HandleFunc("POST /visits", plain)

	gorilla := mux.NewRouter()
	gorilla.HandleFunc("/visits", plain).Methods("POST")

	gateway := runtime.NewServeMux()
	if err := gateway.HandlePath("POST", "/visits", func(w http.ResponseWriter, r *http.Request, _ map[string]string) { plain(w, r) }); err != nil {
		t.Fatal(err)
	}

	humaMux := http.NewServeMux()
	api := humago.New(humaMux, huma.DefaultConfig("test", "1"))
	huma.Post(api, "/visits", func(ctx context.Context, _ *struct{}) (*struct{ Body struct{ Visits int } }, error) {
		out := &struct{ Body struct{ Visits int } }{}
		out.Body.Visits = count(ctx)
		return out, nil
	})

	connectMux := http.NewServeMux()
	connectMux.Handle("/visits", connect.NewUnaryHandler("/visits", func(ctx context.Context, _ *connect.Request[wrapperspb.StringValue]) (*connect.Response[wrapperspb.Int64Value], error) {
		return connect.NewResponse(wrapperspb.Int64(int64(count(ctx)))), nil
	}))

	return map[string]http.Handler{
		"http.ServeMux": std, "gorilla/mux": gorilla, "grpc-gateway": gateway, "huma": humaMux, "connect-go": connectMux,
	}
}

func TestRouters(t *testing.T) {
	for name, h := range routers(t) {
		m, err := session.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		b := sessiontest.NewBrowser(t, m.Handler(h))
		for range 3 {
			r := httptest.NewRequest("POST", "/visits", strings.NewReader(`""`))
			r.Header.Set("Content-Type", "application/json")
			if resp := b.Do(r); resp.StatusCode >= 300 {
				body, _ := io.ReadAll(resp.Body)
				t.Errorf("%s: %s %s", name, resp.Status, bytes.TrimSpace(body))
			}
		}
		b.Session(m, func(s *session.Session) {
			if n := visits.Get(s); n != 3 {
				t.Errorf("%s: counted %d, want 3", name, n)
			}
		})
	}
}
