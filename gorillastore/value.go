package gorillastore

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"fmt"
	"reflect"
	"strconv"
	"unicode/utf8"
)

// encode returns v as text that keeps its type: a letter for the type, and the value. The most
// frequent types have a letter of their own, because a gob decoder per value is slow and a gob
// stream describes its types. All others are gob, which needs gob.Register for types of the
// application.
func encode(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "n", nil
	case string:
		if utf8.ValidString(v) { // JSON, which contains the text, keeps no other
			return "s" + v, nil
		}
	case int:
		return "i" + strconv.Itoa(v), nil
	case int64:
		return "l" + strconv.FormatInt(v, 10), nil
	case bool:
		return "b" + strconv.FormatBool(v), nil
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(&v); err != nil {
		return "", err
	}
	return "g" + base64.RawStdEncoding.EncodeToString(b.Bytes()), nil
}

// decode returns the value that encode has encoded.
func decode(text string) (v any, err error) {
	if text == "" {
		return nil, errEntry
	}
	switch kind, text := text[0], text[1:]; kind {
	case 'n':
		return nil, nil
	case 's':
		return text, nil
	case 'i':
		return strconv.Atoi(text)
	case 'l':
		return strconv.ParseInt(text, 10, 64)
	case 'b':
		return strconv.ParseBool(text)
	case 'g':
		b, err := base64.RawStdEncoding.DecodeString(text)
		if err == nil {
			err = gob.NewDecoder(bytes.NewReader(b)).Decode(&v)
		}
		return v, err
	}
	return nil, errEntry
}

var errEntry = fmt.Errorf("gorillastore: the stored entry is damaged, or was written by a newer version")

// isSame reports whether two encoded values are equal. The bytes of gob cannot be compared: maps
// are written in random order, and the numbers of types depend on which types a process has
// encoded before.
func isSame(a, b string) bool {
	if a == b {
		return true
	}
	if a == "" || b == "" || a[0] != 'g' || b[0] != 'g' {
		return false
	}
	x, err := decode(a)
	if err != nil {
		return false
	}
	y, err := decode(b)
	return err == nil && reflect.DeepEqual(x, y)
}
