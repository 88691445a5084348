package session

import (
	"context"
	"log/slog"
)

// defaultLogger is used if Options.Logger is nil.
var defaultLogger = slog.New(defaultHandler{})

// A defaultHandler passes each line to the handler of slog.Default, which the program may set
// after New.
type defaultHandler struct{}

func (defaultHandler) current() slog.Handler { return slog.Default().Handler() }

// Enabled implements slog.Handler.
func (h defaultHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.current().Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h defaultHandler) Handle(ctx context.Context, r slog.Record) error {
	return h.current().Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h defaultHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.current().WithAttrs(attrs)
}

// WithGroup implements slog.Handler.
func (h defaultHandler) WithGroup(name string) slog.Handler { return h.current().WithGroup(name) }
