package expressjs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/coatcheck/session"
	"github.com/redis/go-redis/v9"
)

// A RedisStore is a [session.Store] over the records of connect-redis: one string for
// each session, which Go replaces only if it is still what Go has read.
//
// What only Go knows of a session stands beside it in a hash of its own, and so do
// its tombstones: "go-session:s:{" + the record's key + "}", on the same node of a
// Cluster. "go-session:u:" + the user is an index of his sessions. A session that
// somebody began at Express comes into it when Go first touches it.
//
// A load is one round trip, a save two: the record is read, and then swapped.
type RedisStore struct {
	client redis.UniversalClient
	o      Options
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
	return &RedisStore{client, o}, nil
}

func (s *RedisStore) key(id string) string    { return s.o.Prefix + id }
func (s *RedisStore) ownKey(id string) string { return ownPrefix + "s:{" + s.key(id) + "}" }
func userKey(user string) string              { return ownPrefix + "u:" + user }
func (s *RedisStore) keys(id string) []string { return []string{s.key(id), s.ownKey(id)} }

// Load implements session.Store.
func (s *RedisStore) Load(ctx context.Context, id string) (*session.Record, error) {
	return s.o.load(ctx, s, id)
}

// Create implements session.Store.
func (s *RedisStore) Create(ctx context.Context, r *session.Record) error {
	return s.o.create(ctx, s, r)
}

// Save implements session.Store.
func (s *RedisStore) Save(ctx context.Context, r *session.Record, old uint64) error {
	return s.o.save(ctx, s, r, old)
}

// Delete implements session.Store.
func (s *RedisStore) Delete(ctx context.Context, id string) error {
	if err := s.client.Del(ctx, s.keys(id)...).Err(); err != nil {
		return fmt.Errorf("expressjs: delete: %w", written(err))
	}
	return nil
}

// forget implements place.
func (s *RedisStore) forget(ctx context.Context, id string) error {
	return s.client.Del(ctx, s.key(id)).Err()
}

// look implements place.
func (s *RedisStore) look(ctx context.Context, id string) (*snapshot, error) {
	snaps, err := s.lookAll(ctx, id)
	if err != nil {
		return nil, err
	}
	return &snaps[0], nil
}

// lookAll reads what stands in Redis of sessions, the record before what Go knows of it:
// who finds a record gone must see the tombstone that took its place.
func (s *RedisStore) lookAll(ctx context.Context, ids ...string) ([]snapshot, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	type replies struct {
		raw *redis.StringCmd
		ttl *redis.DurationCmd
		own *redis.SliceCmd
	}
	all := make([]replies, len(ids))
	pipe := s.client.Pipeline()
	for i, id := range ids {
		all[i] = replies{pipe.Get(ctx, s.key(id)), pipe.PTTL(ctx, s.key(id)), pipe.HMGet(ctx, s.ownKey(id), fields...)}
	}
	if _, err := pipe.Exec(ctx); err != nil && err != redis.Nil {
		return nil, err
	}
	now := time.Now()
	snaps := make([]snapshot, len(ids))
	for i, r := range all {
		snap := &snaps[i]
		switch raw, ttl := r.raw.Val(), r.ttl.Val(); {
		case r.raw.Err() == redis.Nil, ttl == -2:
		case ttl == -1:
			snap.raw, snap.lasting = []byte(raw), true
		default:
			snap.raw, snap.expires = []byte(raw), now.Add(ttl)
		}
		var err error
		if snap.own, err = ownOf(r.own.Val()); err != nil {
			return nil, err
		}
	}
	return snaps, nil
}

// fields are those of the hash of what only Go knows. Times are Unix milliseconds.
var fields = []string{"version", "sum", "user", "created", "seen", "deadline", "expires", "tombstone", "exact"}

func ownOf(values []any) (*own, error) {
	if len(values) != len(fields) || values[0] == nil {
		return nil, nil
	}
	text := func(i int) string { s, _ := values[i].(string); return s }
	var failed error
	number := func(i int) int64 {
		n, err := strconv.ParseInt(text(i), 10, 64)
		if err != nil {
			failed = fmt.Errorf("the field %s of what Go knows of the session is damaged", fields[i])
		}
		return n
	}
	at := func(i int) time.Time { return time.UnixMilli(number(i)) }
	w := &own{version: uint64(number(0)), sum: text(1), user: text(2), created: at(3), seen: at(4), deadline: at(5), expires: at(6)}
	if values[7] != nil {
		w.tombstone = []byte(text(7))
	}
	w.exact, w.isExact = []byte(text(8)), values[8] != nil
	return w, failed
}

// args returns the fields for a script, and how long the hash is to live.
func (w *own) args(now time.Time) []any {
	end := w.deadline
	if w.tombstone == nil {
		end = end.Add(beyond)
	}
	args := []any{milliseconds(end.Sub(now))}
	add := func(name string, value any) { args = append(args, name, value) }
	add("version", strconv.FormatUint(w.version, 10))
	add("sum", w.sum)
	add("user", w.user)
	add("created", w.created.UnixMilli())
	add("seen", w.seen.UnixMilli())
	add("deadline", w.deadline.UnixMilli())
	add("expires", w.expires.UnixMilli())
	if w.tombstone != nil {
		add("tombstone", w.tombstone)
	}
	if w.isExact {
		add("exact", w.exact)
	}
	return args
}

// milliseconds is what Redis takes for a time to live: at most some 3000 years.
func milliseconds(d time.Duration) int64 { return max(1, d.Milliseconds()) }

// swapScript replaces the record ARGV[1], "" for none, by ARGV[2], "" for none, and
// what Go knows of it, if neither has moved on: two writes may leave the same record.
// It knows its own write again by the version.
// ARGV: before, after, milliseconds to live, the versions before and after, then
// own.args.
var swapScript = redis.NewScript(`
local is = redis.call('GET', KEYS[1]) or ''
local version = redis.call('HGET', KEYS[2], 'version') or ''
if version == ARGV[5] and is == ARGV[2] then return 1 end
if is ~= ARGV[1] or version ~= ARGV[4] then return 0 end
if ARGV[2] == '' then
	redis.call('DEL', KEYS[1])
else
	redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], unpack(ARGV, 7))
redis.call('PEXPIRE', KEYS[2], ARGV[6])
return 1
`)

// swap implements place.
func (s *RedisStore) swap(ctx context.Context, id string, before *snapshot, after []byte, w *own, now time.Time) (bool, error) {
	version := ""
	if before.own != nil {
		version = strconv.FormatUint(before.own.version, 10)
	}
	life := milliseconds(w.expires.Sub(now))
	args := append([]any{before.raw, after, life, version, strconv.FormatUint(w.version, 10)}, w.args(now)...)
	n, err := swapScript.Run(ctx, s.client, s.keys(id), args...).Int()
	return n == 1, written(err)
}

// touchScript moves the end of a record, and answers with it: EXPIRE and no more, as
// connect-redis does it. ARGV: seen, expires, now, all Unix milliseconds.
var touchScript = redis.NewScript(`
local raw = redis.call('GET', KEYS[1])
if not raw then return false end
local own = redis.call('HMGET', KEYS[2], 'seen', 'deadline', 'tombstone')
if own[3] then return false end
local ttl = math.min(tonumber(ARGV[2]), tonumber(own[2]) or tonumber(ARGV[2])) - tonumber(ARGV[3])
local is = redis.call('PTTL', KEYS[1])
if ttl > is and ttl > 0 then
	redis.call('PEXPIRE', KEYS[1], string.format('%.0f', ttl))
	if own[1] then redis.call('HSET', KEYS[2], 'expires', string.format('%.0f', ttl + tonumber(ARGV[3]))) end
end
if own[1] and tonumber(ARGV[1]) > tonumber(own[1]) then redis.call('HSET', KEYS[2], 'seen', ARGV[1]) end
return raw
`)

// Touch implements session.Store.
func (s *RedisStore) Touch(ctx context.Context, id string, seen, expires time.Time) error {
	reply, err := touchScript.Run(ctx, s.client, s.keys(id), seen.UnixMilli(), expires.UnixMilli(), time.Now().UnixMilli()).Result()
	switch {
	case err == redis.Nil:
		return session.ErrNotFound
	case err != nil:
		return fmt.Errorf("expressjs: touch: %w", written(err))
	}
	raw, _ := reply.(string)
	if err := s.o.touched(ctx, s, id, []byte(raw), expires); err != nil {
		return fmt.Errorf("expressjs: touch: %w", err)
	}
	return nil
}

// indexScript adds a session to its user's, and lets the index live longer than it.
var indexScript = redis.NewScript(`
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
`)

// index implements place.
func (s *RedisStore) index(ctx context.Context, user, id string, expires time.Time) error {
	if user == "" {
		return nil
	}
	life := milliseconds(time.Until(expires) + beyond)
	return written(indexScript.Run(ctx, s.client, []string{userKey(user)}, expires.UnixMilli(), id, life).Err())
}

// List implements session.Store.
func (s *RedisStore) List(ctx context.Context, user string) ([]*session.Record, error) {
	if user == "" {
		return nil, nil
	}
	ids, err := s.client.ZRange(ctx, userKey(user), 0, -1).Result()
	var snaps []snapshot
	if err == nil && len(ids) > 0 {
		snaps, err = s.lookAll(ctx, ids...)
	}
	if err != nil {
		return nil, fmt.Errorf("expressjs: list: %w", err)
	}
	var records []*session.Record
	var over []any
	for i := range snaps {
		r, err := s.o.record(ids[i], &snaps[i], time.Now())
		switch {
		case err == session.ErrNotFound && snaps[i].raw == nil:
			over = append(over, ids[i])
		case err == nil && r.User == user:
			records = append(records, r)
		}
	}
	if len(over) > 0 {
		_ = s.client.ZRem(ctx, userKey(user), over...) // else the next List does it
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
		return err
	}
	return fmt.Errorf("%w: %w", session.ErrIndeterminate, err)
}
