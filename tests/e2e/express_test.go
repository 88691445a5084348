package e2e

import (
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/coatcheck/session/internal/testing/servers"
)

// TestExpressAndGo logs in at Express, uses the dashboard of the Go app and Express in turn,
// logs out at the Go app, and is then logged out at Express.
func TestExpressAndGo(t *testing.T) {
	for _, name := range []string{"node", "npm", "redis-server"} {
		servers.Program(t, name)
	}
	base := launch(t, "../../examples/integrations/express", ".", nil)
	c := startChrome(t, "")
	c.open(base)
	c.expect("Nobody is logged in.")
	c.picture("express-login")
	run(c, chromedp.SetValue(chromedp.CSS(`input[name="user"]`), "ann"))
	c.click("button")
	c.expect("Hello, ann. Go has shown you this dashboard 1 times.")
	c.picture("express-dashboard")
	if k := c.only(); k.Name != "connect.sid" || !k.HTTPOnly || k.Session {
		t.Errorf("the browser stored %+v", k)
	}
	c.click("a")
	c.expect("Hello, ann. Express has shown you this page 1 times, and Go its dashboard 1 times.")
	c.picture("express-first")
	c.click("a")
	c.expect("Go has shown you this dashboard 2 times, and Express its page 1 times.")
	another := c.tab()
	another.open(base)
	another.expect("Hello, ann.")
	c.click("button")
	c.expect("Nobody is logged in.")
	another.open(base)
	another.expect("Nobody is logged in.")
	another.open(base + "/dashboard")
	another.expect("Nobody is logged in.")
	if all := c.cookies(); len(all) != 0 {
		t.Errorf("%d cookies are left", len(all))
	}
}
