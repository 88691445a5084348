package session

import (
	"fmt"
	"log/slog"
	"reflect"
)

// Format implements fmt.Formatter. Whatever the verb, it prints no secret: of Secrets
// only the number, and of the Store, Tokens, Logger and functions only the type.
func (o Options) Format(f fmt.State, _ rune) { fmt.Fprint(f, "session.Options", attrs(o)) }

// LogValue implements slog.LogValuer. It says what Format prints.
func (o Options) LogValue() slog.Value { return slog.GroupValue(attrs(o)...) }

// Format implements fmt.Formatter. Of Adapt it prints only the type.
func (o CookieOptions) Format(f fmt.State, _ rune) { fmt.Fprint(f, "session.CookieOptions", attrs(o)) }

// LogValue implements slog.LogValuer.
func (o CookieOptions) LogValue() slog.Value { return slog.GroupValue(attrs(o)...) }

// attrs returns the fields of a struct of options that are set.
func attrs(options any) (all []slog.Attr) {
	v := reflect.ValueOf(options)
	for i := range v.NumField() {
		name, field := v.Type().Field(i).Name, v.Field(i)
		switch {
		case field.IsZero():
		case name == "Secrets":
			all = append(all, slog.Int(name, field.Len()))
		case field.Kind() == reflect.Func, field.Kind() == reflect.Interface, field.Kind() == reflect.Pointer:
			all = append(all, slog.String(name, fmt.Sprintf("%T", field.Interface())))
		default:
			all = append(all, slog.Any(name, field.Interface()))
		}
	}
	return all
}
