package main

// Promises that the simulator judges, where several faults break them.
const (
	signsNobodyOut  = "a renewal signs nobody out"
	letsNobodyIn    = "a renewal lets nobody in"
	logoutWins      = "logout wins"
	noLostUpdate    = "no lost update"
	newestIsRenewed = "the newest key is renewed"
	twoClocks       = "two clocks"
	done            = "Done"
	refreshOnce     = "Refresh once"
	asked           = "ends only what was asked"
	nobodyElse      = "nobody as somebody else"
	logsIn          = "a Login logs in"
)

// faults are the mistakes that the simulator must find.
var faults = []fault{
	// Values.
	{"a commit overwrites what is newer", "queue.go",
		"err := n.m.store.Save(n.c, rec, old)\n",
		`err := n.m.store.Save(n.c, rec, old)
	if errors.Is(err, ErrConflict) {
		if now, failed := n.m.store.Load(n.c, rec.ID); failed == nil {
			err = n.m.store.Save(n.c, rec, now.Version)
		}
	}
`, noLostUpdate},
	{"MemoryStore.Save compares no versions", "memory.go",
		"case e.version != version:\n", "case false:\n", noLostUpdate},
	{"Update does not run again on a conflict", "changes.go",
		"if c.again != nil {\n\t\t\tif in", "if c.again != nil && bytes.Equal(c.in, notJSON) {\n\t\t\tif in", noLostUpdate},
	{"a conflict forgets what the request changed", "commit.go",
		"if k.becomes(newer); k.stored.is == live && !isReported {\n",
		"k.todo.changes = nil\n\tif k.becomes(newer); k.stored.is == live && !isReported {\n", noLostUpdate},
	{"what is changed after the first byte is lost", "save.go",
		"if s.plan() != rest {\n\t\tif err := s.commitNow(); err", "if s.plan() != rest && false {\n\t\tif err := s.commitNow(); err", noLostUpdate},
	{"a write of unknown outcome is repeated", "commit.go",
		"case errors.Is(err, ErrIndeterminate) && !k.todo.logout:\n", "case false:\n", "no doubled update"},
	{"Take is not atomic", "immediate.go",
		"if bytes.Equal(in, u.was) {\n", "if bytes.Equal(in, u.was) || u.call == \"Take\" {\n", "one takes it"},
	{"a Login forgets the values of an anonymous session", "ending.go",
		"if old == nil || old.User != \"\" && old.User != k.todo.user {\n", "if old == nil || old.User != k.todo.user {\n", noLostUpdate},
	{"a Login does not look again at the anonymous session on a conflict", "ending.go",
		"case !inherits:\n\t\t\tcontinue\n", "case !inherits || true:\n\t\t\tcontinue\n", noLostUpdate},
	{"a member of the keys is no JSON", "keys.go",
		"add(`\"login\"`, []byte(\"true\"))", "add(`\"login\"`, []byte(\"True\"))", "json"},
	{"the keys of a session are not bounded", "keys.go",
		"return issued > maxRecent || issued > maxIssued && !isRecent\n", "return issued > 10000 && isRecent\n", "bounded records"},

	// Who has the session.
	{"a Login as another user keeps the session", "state.go",
		"case st.is == live && t.user != \"\" && t.user != st.rec.User,\n", "case st.is == live && t.user != \"\" && st.rec.User == \"\",\n", nobodyElse},
	{"a failing load is taken for nobody", "load.go",
		"this.rec, err = k.loadWithKey(this.held.ID); err != nil {\n", "this.rec, err = k.loadWithKey(this.held.ID); err != nil && false {\n", signsNobodyOut},
	{"a Login that takes another's place merges what it has not", "ending.go",
		"if k.stored.is == live {\n\t\t\tk.merge(rec, hasMerged)\n", "if true {\n\t\t\tk.merge(rec, hasMerged)\n", "no panic"},

	// The two clocks.
	{"the idle time is never over", "record.go",
		"rec.Expires = later(rec.Expires, earlier(now.Add(k.m.idle), rec.Deadline))\n", "rec.Expires = rec.Deadline\n", twoClocks},
	{"the lifetime is never over", "record.go",
		"rec.Deadline = rec.Created.Add(k.m.lifetime)\n", "rec.Deadline = rec.Created.Add(1000 * k.m.lifetime)\n", twoClocks},
	{"a request in the background is a use", "login.go",
		"return s.source != nil && !s.background", "return s.source != nil", twoClocks},
	{"MemoryStore.Save takes a use back", "memory.go",
		"seen, expires := max(e.seen, r.LastSeen.UnixMilli()), max(e.expires, r.Expires.UnixMilli())\n",
		"seen, expires := r.LastSeen.UnixMilli(), r.Expires.UnixMilli()\n", "clocks never back"},
	{"no request touches the session", "touch.go",
		"if !s.m.touches.begin(rec.ID, used) {\n", "if true {\n", twoClocks},

	// Endings.
	{"a Logout deletes the record", "ending.go",
		"if err = n.save(tombstone(rec, why, \"\"), rec.Version); err == nil {\n", "if err = m.store.Delete(c, n.id); err == nil {\n", "a lost answer signs nobody out"},
	{"a Logout ends nothing", "ending.go",
		"ids = append(ids, st.rec.ID)\n\tcase", "\n\tcase", logoutWins},
	{"a Logout does not follow a Login", "ending.go",
		"case is == ended:\n\t\t\treturn nil, reasonOf(rec), nil\n", "case is != live:\n\t\t\treturn nil, reasonOf(rec), nil\n", logoutWins},
	{"a late request with the ended token begins a session", "load.go",
		"case st.is == ended && k.arrivedAfter(endOf(rec).Add(dropAfterEnd), now):\n", "case st.is == ended:\n", logoutWins},
	{"a Logout with a replaced token ends the session", "ending.go",
		"case st.over() == ErrReplaced && st.is != stale && st.wasHad:\n", "case st.over() == ErrReplaced:\n", "a replaced token ends nothing"},
	{"a replayed token ends the session", "load.go",
		"k.note(EventReplayed, rec, ErrReplaced)\n", "k.note(EventReplayed, rec, ErrReplaced)\n\t\t\t_, _, _ = k.m.end(k.c, rec.ID, rec.User, byRevoke, nil)\n", asked},
	{"a Save limits the user's sessions", "commit.go",
		"if n.leave(); login {\n", "if n.leave(); login || true {\n", asked},
	{"a Renew signs out first", "login.go",
		"{ t.renew = t.renew || !t.logout && s.stored.is != nothing }", "{ t.renew, t.logout = true, s.stored.is == live }", asked},

	// Renewals.
	{"a key by age counts as presented by the request that made it", "load.go",
		"if s.source == nil || st.isOwn {\n", "if s.source == nil {\n", signsNobodyOut},
	{"a slow response of an automatic renewal signs out", "keys.go",
		"if k.issued != 0 {\n\t\tk.until", "if k.issued != 0 && false {\n\t\tk.until", signsNobodyOut},
	{"a key that is presented late is not noted at once", "load.go",
		"if st.is != live || !st.due.seen || opensNewest(st.rec.Data, st.held.Key) {\n", "if true {\n", signsNobodyOut},
	{"a request notes its key after an older one", "conflict.go",
		"st.isOvertaken = st.isOvertaken || st.due.seen && isOvertaken(st.rec, rec, st.held.Key)\n", "", signsNobodyOut},
	{"the bound of the keys has no minute", "keys.go",
		"return issued > maxRecent || issued > maxIssued && !isRecent\n", "return issued > maxIssued || isRecent && false\n", signsNobodyOut},
	{"no key is renewed by age", "keys.go",
		"due.renew = after > 0 && r.User != \"\" && age >= after\n", "\n", newestIsRenewed},
	{"a thief holds the renewal of the owner off", "keys.go",
		"due.renew = age > betweenKeys\n", "due.renew = age > overlap\n", newestIsRenewed},
	{"an older key renews nothing", "keys.go",
		"case older.isFinal, older.until != 0:\n", "case true:\n", newestIsRenewed},
	{"a key that was replaced by age is good for ever", "keys.go",
		"return k.until == 0 || now.UnixMilli() < k.until }", "return true }", letsNobodyIn},
	{"the grace of an explicit renewal is ten times as long", "keys.go",
		"Raw: number(now.Add(grace).UnixMilli())},\n", "Raw: number(now.Add(10 * grace).UnixMilli())},\n", done},
	{"the key before an explicit renewal keeps its access", "keys.go",
		"if isLogin && o.isLogin && o.issued != 0 {\n\t\t\treturn false\n", "if true {\n\t\t\treturn false\n", letsNobodyIn},
	{"there is no grace", "keys.go",
		"if len(names) > 0 && grace > 0 {\n", "if len(names) > 0 && false {\n", signsNobodyOut},
	{"the grace shows no values", "keys.go",
		"Raw: object.Write(values)},\n", "Raw: object.Write(nil)},\n", "as it was just before"},
	{"the grace shows the session as it is now", "load.go",
		"if st.then, st.shows = asItWas(rec, held.Key, now); st.then == nil {\n",
		"if st.then, st.shows = asItWas(rec, held.Key, now); st.then != nil {\n\t\t\tst.then = rec\n\t\t}\n\t\tif st.then == nil {\n", letsNobodyIn},
	{"a long request whose key was renewed by age logs in without a key", "record.go",
		"case t.wantsToken():\n\t\td.newToken", "case t.wantsToken() && hasAccess(st.rec.Data, st.held.Key, now):\n\t\td.newToken", logsIn},
	{"a Renew with a replaced token makes a key", "record.go",
		"if !t.wantsToken() || t.user != \"\" || st.then == nil", "if true || !t.wantsToken() || t.user != \"\" || st.then == nil", letsNobodyIn},

	// Logins that meet others.
	{"a double click on confirm ends the keys of the first", "keys.go",
		"if isLogin && o.isLogin && o.issued != 0 {\n\t\t\treturn false\n", "if false {\n\t\t\treturn false\n", signsNobodyOut},
	{"a Login with the key of before makes no key", "record.go",
		"case t.wantsToken():\n\t\td.newToken", "case t.wantsToken() && st.then == nil:\n\t\td.newToken", logsIn},
	{"the key of a Login that was saved early leaves only if it is the newest", "save.go",
		"!hasAccess(rec.Data, key, c.Began()) || s.cookie.isAutomatic && !opensNewest", "!hasAccess(rec.Data, key, c.Began()) || !opensNewest", logsIn},
	{"a double click on login leaves the first session", "ending.go",
		"old, err = k.heir(k.stored.next)\n", "_, err = k.heir(k.stored.next)\n", logsIn},
	{"two Logins at once leave the first session", "ending.go",
		"heir, err := k.heir(next)\n\treturn heir, true, err\n", "_, err := k.heir(next)\n\treturn nil, true, err\n", logsIn},
	{"a lost answer to the tombstone of a Login undoes the new session", "ending.go",
		"if errors.Is(err, ErrIndeterminate) && k.hasLeft(old.ID, d.rec.ID) {\n", "if errors.Is(err, ErrIndeterminate) && false {\n", "a lost answer signs nobody out"},
	{"a long request whose key was renewed by age loses the session", "conflict.go",
		"firstKey(rec.Data) != firstKey(st.rec.Data) && !hasAccess(rec.Data, st.held.Key, now)\n", "!hasAccess(rec.Data, st.held.Key, now)\n", signsNobodyOut},
	{"a Create of unknown outcome is not undone", "commit.go",
		"_ = k.m.store.Delete(c, rec.ID) // what", "// what", "nothing is left behind"},
	{"the sessions of a user are not limited", "limit.go",
		"if rec.User == \"\" || k.m.maxUser == 0 {\n", "if true {\n", "MaxPerUser"},
	{"a Login that others have overtaken keeps its session", "limit.go",
		"case newer >= most:\n", "case false:\n", "MaxPerUser"},

	// Refresh.
	{"Refresh takes no lease", "refresh.go",
		"return st.is == live && !l.todo.logout && (", "return false && (", refreshOnce},
	{"the lease is over before the Save of the value", "refresh.go",
		"mine := holder{l.by, until.Add(l.m.timeout).UnixMilli()}\n", "mine := holder{l.by, until.UnixMilli()}\n", refreshOnce},
	{"Refresh begins without time", "refresh.go",
		"if time.Until(l.until) < minLease {\n", "if false {\n", "Refresh has time"},
	{"a claim of unknown outcome is not given back", "refresh.go",
		"l.giveBack(mine)\n", "\n", "a lease is given back"},
	{"the end of a lease is kept pending", "refresh.go",
		"_, _ = l.store(context.WithoutCancel(l.ctx), l.ended) // if", "l.changing.Lock()\n\t\tl.mu.Lock()\n\t\tl.keep(l.edit(l.ended))\n\t\tl.mu.Unlock()\n\t\tl.changing.Unlock() // if", "a lease is given back"},
	{"a claim is kept pending", "refresh.go",
		"err = commit{l.Session, c, &pending{changes: []change{ch}}}.save()\n\tif errors", "l.mu.Lock()\n\tl.keep(ch)\n\tl.mu.Unlock()\n\tif errors", refreshOnce},
	{"who waits for a lease looks without a pause", "poll.go",
		"if err := pause(ctx, betweenLooks, try); err != nil {\n", "if err := pause(ctx, betweenLooks, min(try, 1)); err != nil {\n", "bounded work"},
	{"the look that others wait for does not end", "poll.go",
		"close(look.done)\n", "\n", "ends"},

	// Done.
	{"Done stays open after the grace of an explicit renewal", "watch.go",
		"_, shows := asItWas(rec, r.key, now); shows.IsZero() {\n\t\t\tw.end(r)\n", "_, shows := asItWas(rec, r.key, now); shows.IsZero() {\n", done},
	{"Done stays open when another process ends the session", "load.go",
		"default:\n\t\tm.watch.over(id)\n", "default:\n", done},
	{"a look of the watch older than the token closes Done", "watch.go",
		"if !began.After(r.since) || hasAccess", "if hasAccess", done},
	{"an automatic renewal closes Done", "watch.go",
		"hasAccess(rec.Data, r.key, now) || firstKey(rec.Data) == r.first {\n", "hasAccess(rec.Data, r.key, now) {\n", done},
	{"a renewal by the request itself closes Done", "watch.go",
		"r.key, r.first, r.since = key, first, time.Now()\n", "\n", done},

	// Events, headers, and the rest.
	{"EventReplayed is hidden", "load.go",
		"if !isOpen && !isNoted {\n", "if !isOpen && !isNoted && false {\n", "EventReplayed"},
	{"EventReplayed is doubled", "load.go",
		"k.note(EventReplayed, rec, ErrReplaced)\n", "k.note(EventReplayed, rec, ErrReplaced)\n\t\t\tk.note(EventReplayed, rec, ErrReplaced)\n", "EventReplayed"},
	{"the response has no Vary", "request.go",
		"h[\"Vary\"] = append(q.vary[:1:1], vary...)\n", "_ = vary\n", "caches are told"},
	{"a page of a session that is lost may be stored", "save.go",
		"user: s.stored.wasHad || s.todo.user != \"\", cookie", "cookie", "caches are told"},
	{"a response with a cookie may be stored", "request.go",
		"case h.cookie.do != leave:\n\t\tcontrol = \"no-store\"\n", "case h.cookie.do != leave:\n", "caches are told"},
	{"the cookie leaves although the Create failed", "commit.go",
		"if err := k.m.store.Create(k.c, d.rec); err != nil {\n\t\treturn k.uncreated(d.rec, err)\n\t}\n\tk.install(d)\n\tk.limit()\n",
		"if err := k.m.store.Create(k.c, d.rec); errors.Is(err, ErrIndeterminate) {\n\t\treturn k.uncreated(d.rec, err)\n\t}\n\tk.install(d)\n\tk.limit()\n", "stored before the cookie leaves"},
	{"the cookie is set twice", "cookie.go",
		"h[\"Set-Cookie\"] = append(h[\"Set-Cookie\"], line[:begin]+value+line[begin:])\n",
		"h[\"Set-Cookie\"] = append(h[\"Set-Cookie\"], line[:begin]+value+line[begin:], line[:begin]+value+line[begin:])\n", "one cookie"},
	{"a commit keeps its turn", "commit.go",
		"defer n.leave()\n\tnewer, err", "newer, err", "answers while the store does"},
}
