package migrate

import (
	"net/http"
	"time"

	"github.com/coatcheck/session/internal/firstbyte"
)

// A response gets the cookies of a takeover just before its header leaves, unless that
// is late: the browser may have newer ones by then. Where the handler takes the
// connection none leaves, and the browser's next request brings the old one again.
type response struct {
	writer  firstbyte.Writer
	header  http.Header
	until   time.Time
	cookies func() []string // Set-Cookie, when the header leaves; nil: none
}

// BeforeFirstByte implements firstbyte.Hook.
func (p *response) BeforeFirstByte(bool) error {
	if p.cookies == nil || time.Now().After(p.until) {
		return nil
	}
	if lines := p.cookies(); len(lines) > 0 {
		p.header["Set-Cookie"] = append(lines, p.header["Set-Cookie"]...)
		p.header.Set("Cache-Control", "no-store") // a cache must not give them to others
	}
	return nil
}
