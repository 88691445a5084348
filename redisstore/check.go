package redisstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// Check asks every server, or every master of a Cluster, for settings that can lose
// acknowledged sessions. The error that it returns has one line for each problem, or is nil: an
// eviction policy, persistence that is off or lax, replicas whose acknowledgement no write
// needs, an unsupported version. If a server forbids INFO or CONFIG, as hosted servers often
// do, one of the lines says so. Check also runs a script that does nothing, as every write needs
// the right to run scripts, and with [Options].WaitReplicas a WAIT.
//
// An operator may accept the risk: log the result of Check once, when the program starts. A
// lost write can be a logout that did not happen.
func (s *Store) Check(ctx context.Context) error {
	var mu sync.Mutex
	var found []string
	check := func(ctx context.Context, name string, c redis.UniversalClient) error {
		lines, err := examine(ctx, c, s.replicas)
		mu.Lock()
		defer mu.Unlock()
		for _, line := range lines {
			found = append(found, name+line)
		}
		return err
	}
	each := func(ctx context.Context, c *redis.Client) error {
		return check(ctx, c.Options().Addr+": ", c)
	}
	var err error
	switch c := s.client.(type) {
	case *redis.ClusterClient:
		err = c.ForEachMaster(ctx, each)
	case *redis.Ring:
		err = c.ForEachShard(ctx, each)
	default:
		err = check(ctx, "", c)
	}
	if dial := (*net.OpError)(nil); errors.As(err, &dial) && dial.Op == "dial" {
		err = fmt.Errorf("%w: start the server, or correct the address in the client's options", err)
	}
	if err != nil {
		err = fmt.Errorf("redisstore: check: %w", err)
	}
	slices.Sort(found)
	errs := []error{err}
	for _, line := range found {
		errs = append(errs, errors.New("redisstore: check: "+line))
	}
	return errors.Join(errs...)
}

// examine returns the problems of one server, whose writes wait for that many replicas.
func examine(ctx context.Context, c redis.UniversalClient, replicas int) (found []string, _ error) {
	say := func(when bool, format string, args ...any) {
		if when {
			found = append(found, fmt.Sprintf(format, args...))
		}
	}
	text, err := c.Info(ctx).Result()
	if isLogin(err) {
		return []string{fmt.Sprintf("the server refuses the login (%v): every request fails; set Username and Password in the client's options", err)}, nil
	}
	if refusal(err) {
		say(true, "not allowed to ask: INFO (%v): the version and its replicas are not known", err)
	} else if err != nil {
		return nil, err
	}
	info := fields(text)
	major, _, _ := strings.Cut(info["redis_version"], ".")
	number, err := strconv.Atoi(major)
	say(err == nil && number < 7, "the version %s is too old: Redis 7.0 or Valkey 7.2 at least", info["redis_version"])
	say(info["role"] == "slave", "it is a replica: it lags, and shows sessions that have ended")

	nothing := newScript("return 1")
	if err = c.Eval(ctx, nothing.source, nil).Err(); err == nil {
		err = c.EvalSha(ctx, nothing.sha, nil).Err()
	}
	say(refusal(err), "not allowed to run a script (%v): every write fails; permit EVAL and EVALSHA", err)
	if err != nil && !refusal(err) {
		return found, err
	}
	if replicas > 0 && info["role"] != "slave" {
		const limit = 500 // milliseconds
		count, err := c.Do(ctx, "wait", replicas, limit).Int()
		if err != nil && !refusal(err) {
			return found, err
		}
		say(err != nil, "not allowed to wait for replicas (%v): every login and logout fails; permit WAIT", err)
		say(err == nil && count < replicas, "%d replicas acknowledge writes, and WaitReplicas is %d: every login and logout fails", count, replicas)
	}

	config := map[string]string{"maxmemory-policy": info["maxmemory_policy"]}
	var hidden []string
	for _, name := range []string{"maxmemory-policy", "appendonly", "appendfsync", "save", "min-replicas-to-write"} {
		answer, err := c.ConfigGet(ctx, name).Result()
		value, ok := answer[name]
		switch {
		case err != nil && !refusal(err):
			return found, err
		case ok:
			config[name] = value
		case config[name] == "":
			hidden = append(hidden, name)
		}
	}
	if slices.Contains(hidden, "appendonly") && info["aof_enabled"] != "" {
		config["appendonly"] = map[string]string{"0": "no", "1": "yes"}[info["aof_enabled"]]
	}
	say(len(hidden) > 0, "not allowed to ask: CONFIG GET %s", strings.Join(hidden, " "))
	known := func(name string) bool { return !slices.Contains(hidden, name) }

	policy := config["maxmemory-policy"]
	say(policy != "" && policy != "noeviction", "maxmemory-policy is %s: a full server drops sessions; set noeviction", policy)
	switch {
	case config["appendonly"] == "no" && known("save") && config["save"] == "":
		say(true, "persistence is off: a restart loses all sessions; set appendonly yes and appendfsync always")
	case config["appendonly"] == "no":
		say(true, "persistence is by snapshots at most: a crash loses all writes since the last snapshot; set appendonly yes and appendfsync always")
	case known("appendfsync") && config["appendfsync"] != "always":
		say(true, "appendfsync is %s: a crash loses the last acknowledged writes, logouts among them; set always", config["appendfsync"])
	}
	connected := info["connected_slaves"]
	say(connected != "" && connected != "0" && config["min-replicas-to-write"] == "0",
		"it has replicas, but min-replicas-to-write is 0: a promoted replica may lack acknowledged writes; set 1 or more")
	return found, nil
}

// refusal reports whether err is an error reply of the server, as opposed to a failed
// connection.
func refusal(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply)
}

// isLogin reports whether err says that the client has not logged in, with the password that the
// server asks for.
func isLogin(err error) bool {
	return refusal(err) && (strings.HasPrefix(err.Error(), "NOAUTH") || strings.HasPrefix(err.Error(), "WRONGPASS"))
}

// fields parses the reply of INFO.
func fields(info string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			m[name] = value
		}
	}
	return m
}
