package expressjs

import (
	"context"
	"time"
)

// SignForTest returns the cookie of an id.
func SignForTest(secret, id string) string {
	return encodeURIComponent("s:" + sign([]byte(secret), id))
}

// OwnKeyForTest returns the key of what only Go stores of the session with this key of Express.
func OwnKeyForTest(key string) string { return ownKey(key) }

// ListForTest adds a session to the list of a user, which is the last step of a touch.
func (s *PostgresStore) ListForTest(ctx context.Context, user, id string, expires time.Time) error {
	return s.index(ctx, user, id, expires)
}
