package session

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/coatcheck/session/internal/body"
)

// A Flash is a message for the next page that the user sees. Kind is chosen by the program
// ("info", "error"), for example as a CSS class.
type Flash struct{ Kind, Text string }

// A storedFlash has an id, so that a request that shows a flash removes that one, and not an
// equal one that another request has added meanwhile.
type storedFlash struct {
	ID   string `json:"i"`
	Kind string `json:"k,omitempty"`
	Text string `json:"t"`
}

// AddFlash keeps a message until [Session.Flashes] is called, by this request or a later one. The
// flashes of concurrent requests are all kept, up to 50 in a session and as many as fit into
// [Options].MaxDataSize: the oldest are dropped ([EventDropped]). Bytes that are not UTF-8 become
// U+FFFD.
func (s *Session) AddFlash(kind, text string) {
	f := storedFlash{strconv.FormatUint(rand.Uint64(), 36), kind, text}
	s.update("AddFlash", body.Flashes, func(in []byte) ([]byte, error) {
		all, _ := decode[[]storedFlash](in)
		return json.Marshal(append(all, f))
	})
}

// maxFlashes bounds the flashes of a session whose pages show none.
const maxFlashes = 50

// trimFlashes removes the oldest flashes beyond maxFlashes, and more of them while b is larger
// than maxData bytes, but never the newest flash. It returns an error that says how many were
// removed, or nil if none were.
func trimFlashes(b *body.Body, maxData int) error {
	all, _ := decode[[]storedFlash](b.Get(body.Flashes))
	kept := all[max(len(all)-maxFlashes, 0):]
	for set := len(kept) < len(all); ; set = true {
		if set {
			raw, _ := json.Marshal(kept) // it was decoded from JSON
			b.Set(body.Flashes, raw)
		}
		if len(kept) <= 1 || b.Size() <= maxData {
			break
		}
		kept = kept[1:]
	}
	if n := len(all) - len(kept); n > 0 {
		return fmt.Errorf("session: AddFlash: %d older flashes did not fit", n)
	}
	return nil
}

// Flashes returns the messages of these kinds, or without kinds all of them, in the
// order in which they were added, and removes them. It leaves messages of other kinds.
// Call it where they are shown, before the first byte of the page.
func (s *Session) Flashes(kinds ...string) []Flash {
	stored, _ := decode[[]storedFlash](s.use().value(body.Flashes))
	if len(kinds) > 0 {
		stored = slices.DeleteFunc(stored, func(f storedFlash) bool { return !slices.Contains(kinds, f.Kind) })
	}
	if len(stored) == 0 {
		return nil
	}
	shown := make([]Flash, len(stored))
	ids := make([]string, len(stored))
	for i, f := range stored {
		shown[i], ids[i] = Flash{f.Kind, f.Text}, f.ID
	}
	s.update("Flashes", body.Flashes, func(in []byte) ([]byte, error) {
		all, _ := decode[[]storedFlash](in)
		all = slices.DeleteFunc(all, func(f storedFlash) bool { return slices.Contains(ids, f.ID) })
		if len(all) == 0 {
			return nil, nil
		}
		return json.Marshal(all)
	})
	return shown
}
