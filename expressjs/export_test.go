package expressjs

import (
	"context"
	"time"
)

// SignForTest is the cookie of an id.
func SignForTest(secret, id string) string {
	return encodeURIComponent("s:" + sign([]byte(secret), id))
}

// OwnKeyForTest is the key of what Go knows of the session under a key of Express's.
func OwnKeyForTest(key string) string { return ownKey(key) }

// ListForTest is what a touch does at its end.
func (s *PostgresStore) ListForTest(ctx context.Context, user, id string, expires time.Time) error {
	return s.index(ctx, user, id, expires)
}
