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
	d, i := w.data, blank(w.data, w.pos)
	first := w.pos == 0
	if first {
		if peek(d, i) != '{' {
			return w.stop()
		}
		i = blank(d, i+1)
	}
	if peek(d, i) == '}' {
		if blank(d, i+1) < len(d) {
			return w.stop()
		}
		return false
	}
	if !first {
		if peek(d, i) != ',' {
			return w.stop()
		}
		i = blank(d, i+1)
	}
	end := text(d, i)
	if end < 0 {
		return w.stop()
	}
	w.name = d[i:end:end]
	if i = blank(d, end); peek(d, i) != ':' {
		return w.stop()
	}
	i = blank(d, i+1)
	if end = value(d, i); end < 0 {
		return w.stop()
	}
	w.raw, w.pos = d[i:end:end], end
	return true
}

func (w *walker) stop() bool {
	if len(w.data) > 0 {
		w.err = errData
	}
	return false
}

// peek returns the byte at i, or 0.
func peek(d []byte, i int) byte {
	if i < len(d) {
		return d[i]
	}
	return 0
}

// blank, text and value step over what is at i, and return the position after
// it; -1 if there is no string or no value.

func blank(d []byte, i int) int {
	for i < len(d) && (d[i] == ' ' || d[i] == '\t' || d[i] == '\n' || d[i] == '\r') {
		i++
	}
	return i
}

func text(d []byte, i int) int {
	if peek(d, i) != '"' {
		return -1
	}
	for i++; ; {
		n := bytes.IndexByte(d[i:], '"')
		if n < 0 {
			return -1
		}
		i += n + 1
		slashes := 0
		for d[i-2-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return i
		}
	}
}

func value(d []byte, i int) int {
	start, depth := i, 0
	for i < len(d) {
		switch d[i] {
		case '"':
			if i = text(d, i); i < 0 || depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return ended(start, i)
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return ended(start, i)
			}
		}
		i++
	}
	return -1
}

// ended returns i, the end of a number or a word, if there is one.
func ended(start, i int) int {
	if i == start {
		return -1
	}
	return i
}
