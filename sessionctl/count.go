package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/parallel"
	"github.com/coatcheck/session/sqlstore"
	"github.com/redis/go-redis/v9"
)

// A counted is the answer of count.
type counted struct {
	Live       int `json:"live"`
	LoggedIn   int `json:"logged_in"`
	Users      int `json:"users"` // of the sessions that are logged in
	Anonymous  int `json:"anonymous"`
	Tombstones int `json:"tombstones"` // of sessions that ended within the last minute
	Takeovers  int `json:"takeovers"`  // records by which package migrate knows the old sessions that it has taken over
	Expired    int `json:"expired"`    // not yet deleted; in Redis always 0
	Unreadable int `json:"unreadable"` // in Redis: damaged records; in a database always 0, because it only counts
}

func (p *program) count(ctx context.Context, t *target, _ []string) (int, error) {
	var c counted
	var err error
	if t.redis != nil {
		c, err = p.countRedis(ctx, t.redis)
	} else {
		c, err = t.sql.count(ctx)
	}
	if err != nil {
		return exitStore, err
	}
	c.Anonymous = c.Live - c.LoggedIn
	p.answer(c, func(w io.Writer) { c.print(w, t) })
	return exitDone, nil
}

func (c *counted) print(w io.Writer, t *target) {
	printTable(w, [][]string{
		{"live sessions", fmt.Sprint(c.Live)},
		{"  logged in", fmt.Sprintf("%d, of %s", c.LoggedIn, plural(c.Users, "user"))},
		{"  anonymous", fmt.Sprint(c.Anonymous)},
		{"ended within the last minute", fmt.Sprint(c.Tombstones)},
	})
	if c.Takeovers > 0 {
		fmt.Fprintf(w, "%s of package migrate: the old session was taken over, and is kept from being taken over again.\n", plural(c.Takeovers, "record"))
	}
	if c.Expired > 0 {
		fmt.Fprintf(w, "%s expired and not deleted: they only use space, and sweep deletes them.\n", isAre(c.Expired, "session"))
	}
	if c.Unreadable > 0 {
		fmt.Fprintf(w, "%s damaged: requests with their cookies get 503.\n", isAre(c.Unreadable, "record"))
	}
	if c.Live == 0 {
		fmt.Fprintf(w, "No live session was found. %s.\n", t.hint())
	}
}

// isTakeover reports whether rec is no session but a record of package migrate, whose user is the
// id of the record.
func isTakeover(rec *session.Record) bool { return rec.User == rec.ID }

// count counts the rows by one statement, which reads the whole table.
func (s *sqlTarget) count(ctx context.Context) (c counted, _ error) {
	tombstone := body.Ending{}.Tombstone()
	tombstone = tombstone[:bytes.IndexByte(tombstone, ':')]
	now := time.Now().UnixMilli()
	query := strings.NewReplacer(
		"LIVE", fmt.Sprintf("expires > %d", now),
		"USER", "username <> "+s.literal(nil)+" AND username <> id",
		"TAKEOVER", "username = id",
		"TOMBSTONE", fmt.Sprintf("username = %s AND substr(data, 1, %d) = %s", s.literal(nil), len(tombstone), s.literal(tombstone)),
		"TABLE", s.table,
	).Replace(`SELECT count(*), count(CASE WHEN LIVE THEN 1 END), count(CASE WHEN LIVE AND USER THEN 1 END),
		count(DISTINCT CASE WHEN LIVE AND USER THEN username END), count(CASE WHEN LIVE AND TOMBSTONE THEN 1 END),
		count(CASE WHEN LIVE AND TAKEOVER THEN 1 END) FROM TABLE`)
	var rows int
	err := s.db.QueryRowContext(ctx, query).Scan(&rows, &c.Live, &c.LoggedIn, &c.Users, &c.Tombstones, &c.Takeovers)
	c.Expired = rows - c.Live
	c.Live -= c.Tombstones + c.Takeovers
	return c, err
}

// literal returns bytes as a literal of the database.
func (s *sqlTarget) literal(b []byte) string {
	if s.dialect == sqlstore.PostgreSQL {
		return fmt.Sprintf(`'\x%x'::bytea`, b)
	}
	return fmt.Sprintf("x'%x'", b)
}

const (
	scanned     = 1000 // keys that one SCAN reads, so that none holds the server up
	loadsAtOnce = 32   // concurrent loads: hides the time of a round trip
)

// countRedis reads all keys of the server by SCAN, and loads the sessions among them.
func (p *program) countRedis(ctx context.Context, r *redisTarget) (c counted, _ error) {
	seen, users := map[string]bool{}, map[string]bool{} // a SCAN may return a key twice
	bar := progress{}
	if p.showsProgress {
		bar.to = p.err
	}
	defer bar.clear()
	err := r.eachMaster(ctx, func(_ string, node redis.Cmdable) error {
		size, err := node.DBSize(ctx).Result()
		if err != nil {
			return err
		}
		bar.total += size
		for cursor := uint64(0); ; {
			var keys []string
			if keys, cursor, err = node.Scan(ctx, cursor, "", scanned).Result(); err != nil {
				return err
			}
			bar.add(len(keys))
			var ids []string
			for _, key := range keys {
				if id, ok := strings.CutPrefix(key, r.prefix+"s:"); ok && !seen[id] {
					seen[id] = true
					ids = append(ids, id)
				}
			}
			if err := r.countSessions(ctx, ids, &c, users); err != nil || cursor == 0 {
				return err
			}
		}
	})
	c.Users = len(users)
	return c, err
}

// countSessions adds sessions to c, and their users to users.
func (r *redisTarget) countSessions(ctx context.Context, ids []string, c *counted, users map[string]bool) error {
	records := make([]*session.Record, len(ids))
	damaged := make([]bool, len(ids))
	err := parallel.Do(len(ids), loadsAtOnce, func(i int) (err error) {
		records[i], err = r.store.Load(ctx, ids[i])
		switch {
		case errors.Is(err, session.ErrNotFound):
			return nil
		case err != nil && strings.Contains(err.Error(), "corrupt"):
			damaged[i] = true
			return nil
		}
		return err
	})
	for i, rec := range records {
		switch {
		case damaged[i]:
			c.Unreadable++
		case rec == nil:
		case body.IsTombstone(rec.Data):
			c.Tombstones++
		case isTakeover(rec):
			c.Takeovers++
		default:
			c.Live++
			if rec.User != "" {
				c.LoggedIn++
				users[rec.User] = true
			}
		}
	}
	return err
}

// eachMaster calls f for the server, or for every master of a Cluster, one after the other. name
// is for people.
func (r *redisTarget) eachMaster(ctx context.Context, f func(name string, node redis.Cmdable) error) error {
	cluster, ok := r.client.(*redis.ClusterClient)
	if !ok {
		return f("the server", r.client)
	}
	var mu sync.Mutex
	return cluster.ForEachMaster(ctx, func(_ context.Context, node *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		return f("the server "+node.Options().Addr, node)
	})
}

// progress is a bar on a terminal.
type progress struct {
	to          io.Writer // nil: none
	done, total int64
	drawn       time.Time
}

func (p *progress) add(n int) {
	p.done += int64(n)
	if p.to == nil || time.Since(p.drawn) < 100*time.Millisecond {
		return
	}
	p.drawn = time.Now()
	const width = 30
	part := min(p.done*width/max(p.total, 1), width) // keys may be added meanwhile
	fmt.Fprintf(p.to, "\r[%-*s] %d of %d keys", width, strings.Repeat("#", int(part)), p.done, p.total)
}

// clear removes the bar.
func (p *progress) clear() {
	if p.to != nil && !p.drawn.IsZero() {
		fmt.Fprint(p.to, "\r\x1b[K") // ECMA-48: erase to the end of the line
	}
}

// A swept is the answer of sweep.
type swept struct {
	Deleted int `json:"deleted"`
}

func (p *program) sweep(ctx context.Context, t *target, _ []string) (int, error) {
	if t.redis != nil {
		p.answer(swept{}, func(w io.Writer) {
			fmt.Fprintln(w, "Nothing to do: Redis deletes expired sessions by itself.")
		})
		return exitDone, nil
	}
	n, err := t.sql.store.Sweep(ctx)
	if err != nil {
		return exitStore, fmt.Errorf("deleted %s, then: %w", plural(n, "expired session"), err)
	}
	p.answer(swept{n}, func(w io.Writer) {
		fmt.Fprintf(w, "Deleted %s.\n", plural(n, "expired session"))
	})
	return exitDone, nil
}
