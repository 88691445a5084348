package expressjs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/coatcheck/session"
	"github.com/redis/go-redis/v9"
)

// A RedisStore is a [session.Store] over the records of connect-redis, one string for each session.
// It replaces a string only if the string has not changed since Go read it.
//
// A second key contains what only Go stores of a session, and the tombstone: "go-session:s:{" + the
// key of the record + "}", without the braces if the key has a hash tag, so that both are on the
// same node of a Cluster. "go-session:u:" + the prefix + the user is an index of the sessions of
// the user. A session that began at Express is added to the index when Go first loads it.
//
// A load is one round trip, and so is a save of a session that this process has loaded.
type RedisStore struct {
	client redis.UniversalClient
	records
}

var _ session.Store = (*RedisStore)(nil)

// NewRedisStore returns a Store on a client, which the caller has to close. A nil opts means all
// defaults. The error joins every mistake in opts. NewRedisStore sends no command. The client
// should have ContextTimeoutEnabled, and must not read from replicas.
func NewRedisStore(client redis.UniversalClient, opts *Options) (*RedisStore, error) {
	if opts == nil {
		opts = &Options{}
	}
	o, err := opts.resolve()
	if client == nil {
		err = errors.Join(errors.New("expressjs: NewRedisStore: the client is nil"), err)
	}
	if err != nil {
		return nil, err
	}
	return &RedisStore{client, records{o: o}}, nil
}

func (s *RedisStore) key(id string) string    { return s.o.Prefix + id }
func (s *RedisStore) userKey(u string) string { return ownPrefix + "u:" + s.o.Prefix + u }
func (s *RedisStore) keys(id string) []string { return []string{s.key(id), ownKey(s.key(id))} }

// ownKey returns the key of what only Go stores. It is in the hash slot of the record, by the key
// of the record or the hash tag in it.
func ownKey(key string) string {
	if _, tag, ok := strings.Cut(key, "{"); ok && strings.IndexByte(tag, '}') > 0 {
		return ownPrefix + "s:" + key
	}
	return ownPrefix + "s:{" + key + "}"
}

// Load implements session.Store.
func (s *RedisStore) Load(ctx context.Context, id string) (*session.Record, error) {
	return s.load(ctx, s, id)
}

// Create implements session.Store.
func (s *RedisStore) Create(ctx context.Context, r *session.Record) error {
	return s.create(ctx, s, r)
}

// Save implements session.Store.
func (s *RedisStore) Save(ctx context.Context, r *session.Record, old uint64) error {
	return s.save(ctx, s, r, old)
}

// Delete implements session.Store.
func (s *RedisStore) Delete(ctx context.Context, id string) error {
	if err := s.client.Del(ctx, s.keys(id)...).Err(); err != nil {
		return fmt.Errorf("expressjs: delete: %w", written(err))
	}
	return nil
}

// forgetScript deletes a record, and keeps Go's own key for at least ARGV[1] milliseconds.
var forgetScript = redis.NewScript(`
redis.call('DEL', KEYS[1])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[2], ARGV[1]) end
return 1
`)

// forget implements place.
func (s *RedisStore) forget(ctx context.Context, id string, until time.Time) error {
	return written(forgetScript.Run(ctx, s.client, s.keys(id), time.Until(until).Milliseconds()).Err())
}

// look implements place.
func (s *RedisStore) look(ctx context.Context, id string) (*snapshot, error) {
	found, err := s.lookAll(ctx, id)
	if err != nil {
		return nil, err
	}
	return found[0], nil
}

// lookAll looks several sessions up in one round trip.
func (s *RedisStore) lookAll(ctx context.Context, ids ...string) ([]*snapshot, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	pipe := s.client.Pipeline()
	values, lives := make([]*redis.SliceCmd, len(ids)), make([]*redis.Cmd, len(ids))
	for i, id := range ids {
		values[i], lives[i] = pipe.MGet(ctx, s.keys(id)...), pipe.Do(ctx, "PTTL", s.key(id))
	}
	_, err := pipe.Exec(ctx)
	err = explain(err)
	found := make([]*snapshot, len(ids))
	for i := range ids {
		if err == nil {
			life, _ := lives[i].Val().(int64)
			found[i], err = seen(values[i].Val(), life)
		}
	}
	return found, err
}

// seen decodes the reply of Redis: the record, Go's own string, and the remaining life of the
// record in milliseconds; -1: it never expires, -2: it does not exist.
func seen(values []any, life int64) (found *snapshot, err error) {
	found = &snapshot{}
	if raw, ok := values[0].(string); ok && life != -2 {
		found.raw = []byte(raw)
		if found.lasting = life == -1; !found.lasting {
			found.expires = time.Now().Add(duration(life))
		}
	}
	if packed, ok := values[1].(string); ok {
		found.own, err = unpack(packed)
	}
	return found, err
}

// swapScript replaces the record ARGV[1] by ARGV[2] ("" means no record), and Go's own string, if
// neither has changed. Two writes may leave equal records, so it also compares versions, and it
// recognizes its own write by the version. LastSeen and Expires in Go's own string only move
// forward, starting from what a Load would return (see records.record), and Expires not past the
// Deadline.
//
// ARGV: the records before and after, now in Unix milliseconds, the versions before and after, Go's
// own string after, for how many milliseconds past Expires that string is kept, and the window of
// the record before.
var swapScript = redis.NewScript(`
local is = redis.call('GET', KEYS[1]) or ''
local own = redis.call('GETRANGE', KEYS[2], 0, 39)
local version = string.sub(own, 1, 8)
if version == ARGV[5] and is == ARGV[2] then return 1 end
if is ~= ARGV[1] or version ~= ARGV[4] then return 0 end
local now = tonumber(ARGV[3])
local seen, deadline, expires = struct.unpack('>i8i8i8', ARGV[6], 17)
if is ~= '' then
	local ttl, window = redis.call('PTTL', KEYS[1]), tonumber(ARGV[8])
	local was = ttl == -1 and now + window or now + ttl
	local used = ttl == -1 and 0 or was - window
	if own ~= '' then
		local lastSeen, lastDeadline, lastExpires = struct.unpack('>i8i8i8', own, 17)
		seen = math.max(seen, lastSeen)
		if ttl ~= -1 and math.abs(was - lastExpires) < 1000 then was, used = lastExpires, 0 end
		was = math.min(was, lastDeadline)
	end
	if used <= now then seen = math.max(seen, used) end
	expires = math.min(math.max(expires, was), deadline)
end
if ARGV[2] == '' then
	redis.call('DEL', KEYS[1])
else
	redis.call('SET', KEYS[1], ARGV[2], 'PX', string.format('%.0f', math.max(1, expires - now)))
end
own = string.sub(ARGV[6], 1, 16) .. struct.pack('>i8i8i8', seen, deadline, expires) .. string.sub(ARGV[6], 41)
redis.call('SET', KEYS[2], own, 'PX', string.format('%.0f', math.max(1, expires - now + tonumber(ARGV[7]))))
return 1
`)

// swap implements place.
func (s *RedisStore) swap(ctx context.Context, id string, before *snapshot, after []byte, w *own, now time.Time) (bool, error) {
	version, packed := "", w.pack()
	if before.own != nil {
		version = before.own.pack()[:versionEnd]
	}
	n, err := swapScript.Run(ctx, s.client, s.keys(id), before.raw, after, now.UnixMilli(), version, packed[:versionEnd], packed,
		w.until.Sub(w.expires).Milliseconds(), s.o.windowOf(before.raw).Milliseconds()).Int()
	return n == 1, written(err)
}

// touchScript moves the end of a record, starting from what a Load would return, and returns the
// record, or false if the session has ended. The record itself gets only an EXPIRE, as from
// connect-redis. ARGV: seen, expires, now, in Unix milliseconds.
var touchScript = redis.NewScript(`
local raw = redis.call('GET', KEYS[1])
if not raw then return false end
local own = redis.call('GETRANGE', KEYS[2], 0, 40)
local expires, now = tonumber(ARGV[2]), tonumber(ARGV[3])
local lives = redis.call('PTTL', KEYS[1])
local was = now + lives
if own ~= '' then
	local deadline, last = struct.unpack('>i8i8', own, 25)
	if string.byte(own, 41) == 1 or deadline <= now then return false end
	expires = math.min(expires, deadline)
	if lives ~= -1 and math.abs(was - last) < 1000 then was = last end
end
local ttl = expires - now
local further = ttl > 0 and expires > was
if further then redis.call('PEXPIRE', KEYS[1], string.format('%.0f', ttl)) end
if own ~= '' then
	local seen = math.max(tonumber(ARGV[1]), (struct.unpack('>i8', own, 17)))
	redis.call('SETRANGE', KEYS[2], 16, struct.pack('>i8', seen))
	if further then redis.call('SETRANGE', KEYS[2], 32, struct.pack('>i8', expires)) end
	if ttl > redis.call('PTTL', KEYS[2]) then redis.call('PEXPIRE', KEYS[2], string.format('%.0f', ttl)) end
end
return raw
`)

// Touch implements session.Store.
func (s *RedisStore) Touch(ctx context.Context, id string, seen, expires time.Time) error {
	reply, err := touchScript.Run(ctx, s.client, s.keys(id), seen.UnixMilli(), expires.UnixMilli(), time.Now().UnixMilli()).Result()
	switch {
	case err == redis.Nil:
		return s.untouched(ctx, s, id)
	case err != nil:
		return fmt.Errorf("expressjs: touch: %w", written(err))
	}
	raw, _ := reply.(string)
	if err := s.touched(ctx, s, id, []byte(raw), expires); err != nil {
		return fmt.Errorf("expressjs: touch: %w", err)
	}
	return nil
}

// beyond is how long the index of a user keeps a session after the end that Go knows: Express may
// have prolonged the session since.
const beyond = 30 * 24 * time.Hour

// indexScript adds a session to the index of its user, and lets the index live longer than the
// session. It removes only sessions whose known end is before ARGV[4], because a session may be in
// the index before its record is stored. A touch knows only the idle end, so an end never moves to
// an earlier time.
var indexScript = redis.NewScript(`
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[4])
if tonumber(ARGV[1]) > tonumber(redis.call('ZSCORE', KEYS[1], ARGV[2]) or 0) then redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2]) end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
`)

// index implements place.
func (s *RedisStore) index(ctx context.Context, user, id string, lasts time.Time) error {
	if user == "" {
		return nil
	}
	life := max(1, (time.Until(lasts) + beyond).Milliseconds())
	return written(indexScript.Run(ctx, s.client, []string{s.userKey(user)}, lasts.UnixMilli(), id, life, time.Now().Add(-beyond).UnixMilli()).Err())
}

// List implements session.Store.
func (s *RedisStore) List(ctx context.Context, user string) ([]*session.Record, error) {
	if user == "" {
		return nil, nil
	}
	ids, err := s.client.ZRange(ctx, s.userKey(user), 0, -1).Result()
	err = explain(err)
	var snaps []*snapshot
	if err == nil && len(ids) > 0 {
		snaps, err = s.lookAll(ctx, ids...)
	}
	if err != nil {
		return nil, fmt.Errorf("expressjs: list: %w", err)
	}
	records, err := s.of(ctx, s, user, ids, snaps)
	if err != nil {
		return nil, fmt.Errorf("expressjs: list: %w", err)
	}
	return records, nil
}

// written marks the error of a write that Redis may have executed as session.ErrIndeterminate. The
// client may repeat a write itself, because each script recognizes its own write.
func written(err error) error {
	var reply redis.Error
	var op *net.OpError
	switch {
	case err == nil, errors.As(err, &reply), errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrClosed),
		errors.As(err, &op) && op.Op == "dial":
		return explain(err)
	}
	return fmt.Errorf("%w: %w", session.ErrIndeterminate, err)
}
