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

// A RedisStore is a [session.Store] over the records of connect-redis: one string for
// each session, which Go replaces only if it is still what Go has read.
//
// What only Go knows of a session stands beside it under a key of its own, and so do
// its tombstones: "go-session:s:{" + the record's key + "}", or without the braces if
// the key has a hash tag, on the same node of a Cluster. "go-session:u:" + the prefix +
// the user is an index of the user's sessions. A session that somebody began at Express comes into it when
// Go first loads it.
//
// A load is one round trip, and so is a save of what this process has loaded.
type RedisStore struct {
	client redis.UniversalClient
	records
}

var _ session.Store = (*RedisStore)(nil)

// NewRedisStore returns a Store on a client that stays the caller's to close. A nil
// opts means all defaults. It sends nothing, and reports every mistake at once. The
// client should have ContextTimeoutEnabled, and must not read from replicas.
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

// ownKey is the key of what only Go knows: in the slot of the record's key, by that or
// by the hash tag in it.
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

// forgetScript deletes a record, and keeps what Go knows of it for ARGV[1] milliseconds
// at least.
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

// lookAll is look of several sessions in one round trip.
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

// seen is what Redis answers: the record and what Go knows of it, and for how long
// the record lives, in milliseconds; -1: for ever, -2: no more.
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

// swapScript replaces the record ARGV[1], "" for none, by ARGV[2], "" for none, and
// what Go knows of it, if neither has moved on: two writes may leave the same record.
// It knows its own write again by the version. LastSeen and Expires of what Go knows
// move forward only, from what a Load would return (see Options.record), and Expires
// no further than the Deadline.
// ARGV: before, after, now in Unix milliseconds, the versions before and after, what Go
// knows then, how many milliseconds longer than Expires that is kept, and the window of
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

// touchScript moves the end of a record, from what a Load would return, and answers with
// the record, or false if the session has ended: EXPIRE and no more, as connect-redis does
// it. ARGV: seen, expires, now, all Unix milliseconds.
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

// beyond is how long a user's index keeps a session after the end that Go knows of:
// Express may have prolonged the session since.
const beyond = 30 * 24 * time.Hour

// indexScript adds a session to its user's, and lets the index live longer than it.
// Those are forgotten that ended before ARGV[4], as far as Go knows, and no others: a
// session may be in the index before its record is stored. A touch
// knows the idle end only, and brings no end nearer.
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

// written tells of a failed write whether it may have been carried out. The client
// sends one again by itself, for each knows its own work again.
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
