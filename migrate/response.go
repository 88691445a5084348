package migrate

import (
	"net/http"
	"time"

	"github.com/coatcheck/session/internal/firstbyte"
)

// A response sets the cookies of a takeover just before its header is written. It sets none after
// until, because the browser may have newer ones, and none if the handler hijacks the connection:
// the next request of the browser then carries the old cookie again.
type response struct {
	writer  firstbyte.Writer
	header  http.Header
	until   time.Time       // end of the time in which cookies may be set
	cookies func() []string // returns the Set-Cookie lines, called just before the header is written; nil: no lines
}

// BeforeFirstByte implements firstbyte.Hook.
func (p *response) BeforeFirstByte(bool) error {
	if p.cookies == nil || time.Now().After(p.until) {
		return nil
	}
	if lines := p.cookies(); len(lines) > 0 {
		p.header["Set-Cookie"] = append(lines, p.header["Set-Cookie"]...)
		p.header.Set("Cache-Control", "no-store") // a shared cache must not serve these cookies to other clients
	}
	return nil
}
