package session

import (
	"bytes"
	"errors"
)

var errData = errors.New("the stored data is not a JSON object")

// find returns the raw value of a member of a JSON object, or nil.
func find(data []byte, name string) []byte {
	w := walker{data: data}
	for w.next() {
		if string(w.name) == name {
			return w.raw
		}
	}
	return nil
}

// A walker steps through the members of a JSON object. It checks no more of
// the values than it needs to find their ends: who decodes one checks it.
type walker struct {
	data      []byte
	pos       int
	name, raw []byte
	err       error
}

func (w *walker) next() bool {
	first := w.pos == 0
	w.blank()
	if first {
		if !w.take('{') {
			return w.stop()
		}
		w.blank()
	}
	if w.take('}') {
		w.blank()
		if w.pos != len(w.data) {
			return w.stop()
		}
		return false
	}
	if !first && !w.take(',') {
		return w.stop()
	}
	w.blank()
	start := w.pos
	if !w.text() {
		return w.stop()
	}
	w.name = w.data[start:w.pos:w.pos]
	w.blank()
	if !w.take(':') {
		return w.stop()
	}
	w.blank()
	start = w.pos
	if !w.value() {
		return w.stop()
	}
	w.raw = w.data[start:w.pos:w.pos]
	return true
}

func (w *walker) stop() bool {
	if len(w.data) > 0 {
		w.err = errData
	}
	return false
}

func (w *walker) take(c byte) bool {
	if w.pos < len(w.data) && w.data[w.pos] == c {
		w.pos++
		return true
	}
	return false
}

func (w *walker) blank() {
	for w.pos < len(w.data) {
		switch w.data[w.pos] {
		case ' ', '\t', '\n', '\r':
			w.pos++
		default:
			return
		}
	}
}

// text steps over a string.
func (w *walker) text() bool {
	if !w.take('"') {
		return false
	}
	for {
		i := bytes.IndexByte(w.data[w.pos:], '"')
		if i < 0 {
			return false
		}
		w.pos += i + 1
		slashes := 0
		for w.data[w.pos-2-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return true
		}
	}
}

// value steps over a value.
func (w *walker) value() bool {
	start, depth := w.pos, 0
	for w.pos < len(w.data) {
		switch w.data[w.pos] {
		case '"':
			if !w.text() {
				return false
			}
			if depth == 0 {
				return true
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return w.pos > start
			}
			depth--
			if depth == 0 {
				w.pos++
				return true
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return w.pos > start
			}
		}
		w.pos++
	}
	return false
}
