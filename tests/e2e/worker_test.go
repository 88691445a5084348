package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coatcheck/session"
)

// TestServiceWorker uses a service worker of the site, and a payment page of another site that
// posts back to a page that sets a value: the user stays logged in. This holds for the worker
// of docs/recipes/clients.md, which forwards only GETs, and also for a worker that forwards
// every request, although Firefox and WebKit then report the POST as same-origin.
func TestServiceWorker(t *testing.T) {
	const (
		onlyGET = `  if (e.request.method !== "GET") return; // the browser sends the request itself
`
		recipe = `addEventListener("fetch", (e) => {
` + onlyGET + `  e.respondWith(fetch(e.request));
});
`
	)
	page, err := os.ReadFile("../../docs/recipes/clients.md")
	if err != nil || !strings.Contains(string(page), recipe) {
		t.Errorf("docs/recipes/clients.md does not contain the worker: %v", err)
	}
	for name, worker := range map[string]string{"recipe": recipe, "everything": strings.Replace(recipe, onlyGET, "", 1)} {
		t.Run(name, func(t *testing.T) {
			inEach(t, allEngines, func(t *testing.T, engine string, b browser) {
				m, err := session.New(&session.Options{Cookie: session.CookieOptions{Insecure: true}})
				if err != nil {
					t.Fatal(err)
				}
				var forwarded atomic.Bool // whether the worker forwarded the last page or POST
				var site atomic.Value     // Sec-Fetch-Site of the last page or POST
				base, pay := sites(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					s := session.From(r.Context())
					switch r.URL.Path {
					case "/sw.js":
						w.Header().Set("Content-Type", "text/javascript")
						fmt.Fprint(w, worker)
						return
					case "/login":
						s.Login("alice")
					case "/paid":
						s.AddFlash("info", "Thank you!")
					case "/":
					default:
						http.NotFound(w, r)
						return
					}
					forwarded.Store(r.Header.Get("Sec-Fetch-Dest") == "empty")
					site.Store(r.Header.Get("Sec-Fetch-Site"))
					w.Header().Set("Content-Type", "text/html")
					fmt.Fprintf(w, "<p>%s user:%s</p>", r.URL.Path, s.User())
				})), func(base string) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						w.Header().Set("Content-Type", "text/html")
						fmt.Fprintf(w, `<form method=post action="%s/paid"><button>Pay</button></form>`, base)
					})
				})
				b.open(base + "/login")
				b.js(`navigator.serviceWorker.register("/sw.js").then(() => navigator.serviceWorker.ready)`)
				b.open(base)
				b.expect("/ user:alice")
				if !forwarded.Load() && engine != "chromium" { // Chromium reports the forwarded request as a document
					t.Fatal("the worker does not work: this test proves nothing")
				}
				b.open(pay)
				b.click("button")
				b.expect("/paid user:")
				t.Logf("the POST: forwarded by the worker: %v, Sec-Fetch-Site %v", forwarded.Load(), site.Load())
				if own := site.Load() == "same-origin"; own != (name == "everything" && engine != "chromium") {
					t.Errorf("Sec-Fetch-Site of the POST is %v: correct docs/recipes/clients.md, or this test proves nothing", site.Load())
				}
				b.open(base)
				b.expect("/ user:")
				if text := b.text(); text != "/ user:alice" {
					t.Errorf("after the payment page: %s", text)
				}
			})
		})
	}
}
