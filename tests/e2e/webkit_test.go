package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/coatcheck/session/internal/testing/servers"
)

// startWebKit starts WebKitGTK's MiniBrowser with a new profile on a virtual screen, and drives
// it with WebKitWebDriver.
func startWebKit(t testing.TB) browser {
	t.Helper()
	driver, screen := servers.Program(t, "WebKitWebDriver"), servers.Program(t, "Xvfb")
	found, _ := filepath.Glob("/usr/lib/*/webkit2gtk-*/MiniBrowser")
	if len(found) == 0 {
		servers.Missing(t, "MiniBrowser")
	}
	xvfb := scratch(t)
	display := ""
	launchBrowser(t, xvfb, nil, func() bool {
		out, _ := os.ReadFile(filepath.Join(xvfb, "out"))
		display = strings.TrimSpace(string(out))
		return strings.HasSuffix(string(out), "\n")
	}, screen, "-displayfd", "1", "-nolisten", "tcp")

	port := strconv.Itoa(servers.Port(t))
	w := &webKit{url: "http://127.0.0.1:" + port, client: http.Client{Timeout: startLimit}}
	launchBrowser(t, scratch(t), []string{
		"DISPLAY=:" + display,
		"GSETTINGS_BACKEND=memory",
		"WEBKIT_DISABLE_COMPOSITING_MODE=1", // Xvfb has no graphics card
		"WEBKIT_DISABLE_DMABUF_RENDERER=1",
	}, func() bool {
		_, err := w.send(http.MethodGet, "/status", nil)
		return err == nil
	}, driver, "--port="+port)
	always := params{"webkitgtk:browserOptions": params{"binary": found[0], "args": []string{"--automation"}}}
	for name, v := range capabilities {
		always[name] = v
	}
	v, err := w.send(http.MethodPost, "/session", params{"capabilities": params{"alwaysMatch": always}})
	if err != nil {
		t.Fatal(err)
	}
	var session struct{ SessionID string }
	if err := json.Unmarshal(v, &session); err != nil {
		t.Fatal(err)
	}
	w.url += "/session/" + session.SessionID
	w.client.Timeout = callLimit
	return &webDriver{t, w.do}
}

// webKit is the WebDriver protocol of the W3C over HTTP.
type webKit struct {
	url    string // URL of the driver, then of the session
	client http.Client
}

func (w *webKit) do(command string, p any) (json.RawMessage, error) {
	switch command {
	case "WebDriver:Navigate":
		return w.send(http.MethodPost, "/url", p)
	case "WebDriver:Back":
		return w.send(http.MethodPost, "/back", p)
	case "WebDriver:FindElement":
		return w.send(http.MethodPost, "/element", p)
	case "WebDriver:ElementClick":
		return w.send(http.MethodPost, fmt.Sprintf("/element/%s/click", p.(params)["id"]), params{})
	case "WebDriver:ExecuteAsyncScript":
		return w.send(http.MethodPost, "/execute/async", p)
	case "WebDriver:GetCookies":
		return w.send(http.MethodGet, "/cookie", nil)
	}
	return nil, fmt.Errorf("unknown command %s", command)
}

func (w *webKit) send(method, path string, p any) (json.RawMessage, error) {
	body, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(method, w.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct{ Value json.RawMessage }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s", method, path, answer.Value)
	}
	return answer.Value, nil
}
