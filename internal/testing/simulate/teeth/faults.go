package main

// Promises that several faults break.
const (
	logsNoUserOut   = "a renewal logs no user out"
	limitsPrevious  = "a previous token has limited access"
	staysEnded      = "an ended session stays ended"
	noLostUpdate    = "no lost update"
	newestIsRenewed = "the newest key is renewed"
	timeouts        = "idle timeout and lifetime"
	endBy           = "EndBy"
	done            = "Done"
	refreshOnce     = "Refresh once"
	endsRequested   = "only requested sessions end"
	noOtherUser     = "no access as another user"
	logsIn          = "a Login logs in"
	boundedMemory   = "bounded memory"
	lateChanges     = "late changes"
	onlyTheKey      = "only the key opens a bound session"
	bindsNoUserOut  = "a binding logs no user out"
	endpoint        = "the endpoint"
)

// faults are the mistakes that the simulator must find.
var faults = []fault{
	// Values.
	{"a commit overwrites a newer record", "queue.go",
		"err := n.queues.store.Save(n.c, rec, old)\n",
		`err := n.queues.store.Save(n.c, rec, old)
	if errors.Is(err, ErrConflict) {
		if now, failed := n.queues.store.Load(n.c, rec.ID); failed == nil {
			err = n.queues.store.Save(n.c, rec, now.Version)
		}
	}
`, noLostUpdate},
	{"MemoryStore.Save compares no versions", "memory.go",
		"case e.version != version:\n", "case false:\n", noLostUpdate},
	{"Update does not run again on a conflict", "internal/body/changes.go",
		"if c.Again != nil {\n\t\t\tif in", "if c.Again != nil && bytes.Equal(c.In, []byte{0}) {\n\t\t\tif in", noLostUpdate},
	{"a conflict drops the changes of the request", "load.go",
		"if t.rebase(newer); t.stored.status == statusLive && !isReported {\n",
		"t.pending.changes = nil\n\tif t.rebase(newer); t.stored.status == statusLive && !isReported {\n", noLostUpdate},
	{"a change after the first byte is lost", "response.go",
		"case isReady && t.plan() != actNothing:\n", "case isReady && false:\n", noLostUpdate},
	{"a write of unknown outcome is repeated", "failure.go",
		"case errors.Is(err, ErrIndeterminate) && !t.pending.logout:\n", "case false:\n", "no duplicate update"},
	{"Take is not atomic", "immediate.go",
		"if bytes.Equal(in, u.was) {\n", "if bytes.Equal(in, u.was) || u.call == \"Take\" {\n", "one request takes a value"},
	{"a Login forgets the values of an anonymous session", "successor.go",
		"if old == nil || old.User != \"\" && old.User != t.pending.user {\n", "if old == nil || old.User != t.pending.user {\n", noLostUpdate},
	{"a Login does not reload the anonymous session after a conflict", "successor.go",
		"case !inherits:\n\t\t\tcontinue\n", "case !inherits || true:\n\t\t\tcontinue\n", noLostUpdate},
	{"a member of the keys is invalid JSON", "internal/body/keys.go",
		"add(`\"login\"`, []byte(\"true\"))", "add(`\"login\"`, []byte(\"True\"))", "valid JSON"},
	{"the keys of a session are not bounded", "internal/body/renew.go",
		"return issued > maxRecent || issued > maxIssued && !isRecent\n", "return issued > 10000 && isRecent\n", "bounded records"},

	// The user of a session.
	{"a Login as another user keeps the session", "state.go",
		"case s.status == statusLive && p.user != \"\" && p.user != s.rec.User,\n", "case s.status == statusLive && p.user != \"\" && s.rec.User == \"\",\n", noOtherUser},
	{"a failing load counts as anonymous", "load.go",
		"next.rec, err = t.loadWithKey(next.ref.ID); err != nil {\n", "next.rec, err = t.loadWithKey(next.ref.ID); err != nil && false {\n", logsNoUserOut},
	{"a Login that replaces another one merges a missing record", "successor.go",
		"if t.stored.status == statusLive {\n\t\t\tt.merge(rec, isReported)\n", "if true {\n\t\t\tt.merge(rec, isReported)\n", "no panic"},

	// Idle timeout and lifetime.
	{"the idle time never ends", "draft.go",
		"rec.Expires = earlier(later(rec.Expires, now.Add(t.m.idleOf(&rec))), rec.Deadline)\n", "rec.Expires = rec.Deadline\n", timeouts},
	{"the lifetime never ends", "draft.go",
		"rec.Deadline = rec.Created.Add(t.m.lifetime)\n", "rec.Deadline = rec.Created.Add(1000 * t.m.lifetime)\n", timeouts},
	{"a Remember exceeds the end of an EndBy", "draft.go",
		"rec.Deadline = earlier(rec.Deadline, end)\n", "rec.Deadline = later(rec.Deadline, end)\n", endBy},
	{"a later EndBy counts", "internal/body/body.go",
		"(old.IsZero() || t.Before(old))", "(old.IsZero() || !t.IsZero())", endBy},
	{"a passive request counts as a use", "touch.go",
		"return !s.isPassive.Load()", "return true", timeouts},
	{"a longer IdleTimeout has no effect until LastSeen is old", "touch.go",
		"used.Add(idle-least).After(rec.Expires) && rec", "false && rec", timeouts},
	{"a Login after the deployment of a shorter Lifetime keeps the idle end", "draft.go",
		"earlier(later(rec.Expires, now.Add(t.m.idleOf(&rec))), rec.Deadline)", "later(rec.Expires, t.m.idleEnd(&rec, now))", timeouts},
	{"a Login does not start the lifetime again", "draft.go",
		"\t\t\trec.Deadline = p.at.Add(t.m.lifetime)\n", "\t\t\trec.Deadline = later(rec.Deadline, p.at.Add(t.m.lifetime))\n", timeouts},
	{"MaxDataSize is not limited", "draft.go",
		"if size := b.Size(); size > limit {", "if size := b.Size(); size > 8*limit {", "bounded records"},
	{"a session that is too large can no longer be changed", "draft.go",
		"return max(size, limit), err", "return limit, err", "no failure while the store works"},
	{"MemoryStore.Save reverts a use", "memory.go",
		"seen, expires := max(e.seen, r.LastSeen.UnixMilli()), max(e.expires, r.Expires.UnixMilli())\n",
		"seen, expires := r.LastSeen.UnixMilli(), r.Expires.UnixMilli()\n", "times never move back"},
	{"no request touches the session", "touch.go",
		"if !t.s.isTouchDue(&t.stored, used) || !t.m.touches.begin(rec.ID, used) {\n", "if true {\n", timeouts},
	{"a request whose changes are refused does not count as a use", "response.go",
		"t.maintain()\n\t\treturn t.touch(t.loaded)\n", "t.maintain()\n\t\tif !isReady {\n\t\t\treturn nil\n\t\t}\n\t\treturn t.touch(t.loaded)\n", timeouts},

	// Endings.
	{"a Logout deletes the record", "ending.go",
		"if err = n.save(tombstone(rec, why, \"\"), rec.Version); err == nil {\n", "if err = m.store.Delete(c, n.id); err == nil {\n", "a lost reply logs no user out"},
	{"a Logout ends nothing", "ending.go",
		"ids = append(ids, st.rec.ID)\n\tcase", "\n\tcase", staysEnded},
	{"a Logout does not follow a Login", "ending.go",
		"case status == statusEnded:\n\t\t\treturn nil, reason, nil\n", "case status != statusLive:\n\t\t\treturn nil, reason, nil\n", staysEnded},
	{"a late request with the ended token begins a session", "load.go",
		"case st.status == statusEnded && !t.wasInFlight(endOf(rec), now):\n", "case st.status == statusEnded:\n", staysEnded},
	{"a Logout with a replaced token ends the session", "ending.go",
		"case st.status == statusUnproven, st.status == statusReplaced && st.wasLoaded:\n", "case st.err() == ErrReplaced:\n", "a replaced token ends no session"},
	{"a replayed token ends the session", "load.go",
		"t.note(EventReplayed, rec, ErrReplaced)\n", "t.note(EventReplayed, rec, ErrReplaced)\n\t\t\t_, _, _ = t.m.end(t.context(), rec.ID, rec.User, body.ReasonRevoke, nil)\n", endsRequested},
	{"a Save limits the user's sessions", "commit.go",
		"if n.leave(); isLogin {\n", "if n.leave(); isLogin || true {\n", endsRequested},
	{"a Renew first logs out", "renewal.go",
		"p.renew = p.renew || !p.logout && t.stored.status != statusNone\n", "p.renew, p.logout = true, t.stored.status == statusLive\n", endsRequested},

	// Renewals.
	{"a key of an automatic renewal counts as presented by its own request", "renewal.go",
		"if st.isOwn {\n", "if false {\n", logsNoUserOut},
	{"a slow response of an automatic renewal logs the user out", "internal/body/keys.go",
		"if k.issued != 0 {\n\t\tk.until", "if k.issued != 0 && false {\n\t\tk.until", logsNoUserOut},
	{"the presentation of a key is not stored at once", "load.go",
		"if st.status != statusLive || !st.due.Present {\n", "if true {\n", logsNoUserOut},
	{"an overtaken request gets a key", "renewal.go",
		"due.Renew = due.Renew && !st.isOvertaken\n", "\n", limitsPrevious},
	{"an overtaken key is renewed", "internal/body/renew.go",
		"k.older[i].isFinal = k.older[i].isFinal || k.older[i].issued == 0\n", "_ = i\n", limitsPrevious},
	{"the bound of the keys has no minute", "internal/body/renew.go",
		"return issued > maxRecent || issued > maxIssued && !isRecent\n", "return issued > maxIssued || isRecent && false\n", logsNoUserOut},
	{"no key is renewed automatically", "internal/body/maintenance.go",
		"due.Renew = renewAfter > 0 && age >= renewAfter\n", "\n", newestIsRenewed},
	{"a thief delays the renewal of the owner", "internal/body/maintenance.go",
		"due.Renew = age > betweenKeys\n", "due.Renew = age > overlap\n", newestIsRenewed},
	{"a request whose changes are refused does not renew the key", "commit.go",
		"if errors.Is(t.problem.err, ErrStore) || !t.stored.isMaintenanceDue(t.phase()) {\n", "if true {\n", newestIsRenewed},
	{"an older key renews nothing", "internal/body/maintenance.go",
		"case older.isFinal, older.until != 0:\n", "case true:\n", newestIsRenewed},
	{"a key stays valid after an automatic renewal", "internal/body/keys.go",
		"return k.until == 0 || now.UnixMilli() < k.until }", "return true }", limitsPrevious},
	{"the grace of an explicit renewal is ten times as long", "internal/body/renew.go",
		"Until: now.Add(grace)}\n", "Until: now.Add(10 * grace)}\n", done},
	{"the key before an explicit renewal keeps its access", "internal/body/renew.go",
		"if isLogin && o.isLogin && o.issued != 0 {\n\t\t\treturn false\n", "if true {\n\t\t\treturn false\n", limitsPrevious},
	{"there is no grace", "internal/body/renew.go",
		"if len(replaced) > 0 && grace > 0 {\n", "if len(replaced) > 0 && false {\n", logsNoUserOut},
	{"the grace shows no values", "internal/body/frozen.go",
		"Raw: f.Values},\n", "Raw: []byte(\"{}\")},\n", "the grace shows the previous values"},
	{"the grace shows the current session", "load.go",
		"frozen.Created, frozen.Data = was.Created, was.Values\n",
		"", limitsPrevious},
	{"a long request whose key was renewed automatically logs in without a key", "draft.go",
		"case p.needsToken():\n\t\td.newToken", "case p.needsToken() && body.HasAccess(st.rec.Data, st.ref.Key, now):\n\t\td.newToken", logsIn},
	{"a Renew with a replaced token makes a key", "renewal.go",
		"if !p.needsToken() || p.user != \"\" || st.frozen == nil", "if true || !p.needsToken() || p.user != \"\" || st.frozen == nil", limitsPrevious},

	// Concurrent Logins.
	{"a double click on confirm ends the keys of the first", "internal/body/renew.go",
		"if isLogin && o.isLogin && o.issued != 0 {\n\t\t\treturn false\n", "if false {\n\t\t\treturn false\n", logsNoUserOut},
	{"a Login with the previous key makes no key", "draft.go",
		"case p.needsToken():\n\t\td.newToken", "case p.needsToken() && st.frozen == nil:\n\t\td.newToken", logsIn},
	{"a double click on login does not end the first session", "successor.go",
		"return t.heir(st.successor)\n", "_, err := t.heir(st.successor)\n\t\treturn nil, err\n", logsIn},
	{"two concurrent Logins leave the first session", "successor.go",
		"heir, err := t.heir(successor)\n\treturn heir, true, err\n", "_, err := t.heir(successor)\n\treturn nil, true, err\n", logsIn},
	{"a lost reply to the tombstone of a Login deletes the new session", "successor.go",
		"if errors.Is(err, ErrIndeterminate) && t.isReplaced(old.ID, d.rec.ID) {\n", "if errors.Is(err, ErrIndeterminate) && false {\n", "a lost reply logs no user out"},
	{"a long request whose key was renewed automatically loses the session", "load.go",
		"body.ExplicitKey(rec.Data) != body.ExplicitKey(st.rec.Data) && !body.HasAccess(rec.Data, st.ref.Key, now)\n", "!body.HasAccess(rec.Data, st.ref.Key, now)\n", logsNoUserOut},
	{"the key of a Login that was saved early is sent only if it is the newest", "response.go",
		"!body.HasAccess(rec.Data, key, t.c.Began()) || t.cookie.isAutomatic && !body.IsCurrent", "!body.HasAccess(rec.Data, key, t.c.Began()) || !body.IsCurrent", logsIn},
	{"a page of a lost session may be cached", "response.go",
		"hasUser: st.stored.wasLoaded || st.pending.user != \"\", cookie", "cookie", "cache headers"},
	{"a Create of unknown outcome is not reverted", "commit.go",
		"_ = t.m.store.Delete(c, rec.ID)\n", "\n", "no session of unknown outcome is left"},
	{"the sessions of a user are not limited", "limit.go",
		"if rec.User == \"\" || t.m.maxUser == 0 {\n", "if true {\n", "MaxPerUser"},
	{"an overtaken Login keeps its session", "limit.go",
		"case newer >= most:\n", "case false:\n", "MaxPerUser"},

	// Refresh.
	{"Refresh takes no lease", "state.go",
		"return s.status == statusLive && !st.pending.logout && (", "return false && (", refreshOnce},
	{"the lease ends before the Save of the value", "refresh.go",
		"mine := body.Lease{By: l.by, Until: until.Add(l.m.timeout + leaseSkew).UnixMilli()}\n", "mine := body.Lease{By: l.by, Until: until.UnixMilli()}\n", refreshOnce},
	{"Refresh begins with too little time", "refresh.go",
		"if time.Until(l.until) < minLease {\n", "if false {\n", "Refresh has time"},
	{"a claim of unknown outcome is not released", "refresh.go",
		"l.giveBack(mine)\n", "\n", "a lease is released"},
	{"the end of a lease is kept pending", "refresh.go",
		"_, _, _ = l.store(context.WithoutCancel(l.ctx), l.ended) // if", "_ = l.s.transact(func(t *tx) error { t.keep(l.edit(l.ended)); return nil }) // if", "a lease is released"},
	{"a claim is kept pending", "refresh.go",
		"err := t.save(&pending{changes: body.Changes{change}})\n", "t.keep(change)\n\t\tvar err error\n", "Refresh waits no longer than a lease"},
	{"a request that waits for a lease reads the store without a pause", "coalesce.go",
		"if err := pause(ctx, betweenLooks, try); err != nil {\n", "if err := pause(ctx, betweenLooks, min(try, 1)); err != nil {\n", "bounded work"},
	{"a shared read does not end", "coalesce.go",
		"close(look.done)\n", "\n", "every request ends"},

	// Done.
	{"Done stays open after the grace of an explicit renewal", "internal/watch/watch.go",
		"\t\tdefault:\n\t\t\tw.end(r)\n", "\t\tdefault:\n", done},
	{"Done stays open when another process ends the session", "internal/watch/watch.go",
		"case status == StatusEnded && !r.holder.Since.After(began):\n", "case status == StatusEnded:\n\t\tcase false:\n", done},
	{"a read of the watch from before the token closes Done", "internal/watch/watch.go",
		"case status != StatusReplaced || !began.After(r.holder.Since):\n", "case status != StatusReplaced:\n", done},
	{"an automatic renewal closes Done", "done.go",
		"case body.HasAccess(rec.Data, h.Key, now), body.ExplicitKey(rec.Data) == h.Explicit:\n", "case body.HasAccess(rec.Data, h.Key, now):\n", done},
	{"a renewal by the request itself closes Done", "internal/watch/watch.go",
		"r.holder.Key, r.holder.Explicit, r.holder.Since = key, explicit, time.Now()\n", "\n", done},

	// A full store.
	{"MemoryStore.Save does not count the growth of a record", "memory.go",
		"if used := m.used.Add(grown); grown > 0", "if used := m.used.Add(min(grown, 0)); grown > 0", boundedMemory},
	{"a MemoryStore counts removed records", "memory.go",
		"m.used.Add(-e.size())\n}\n\n// began", "}\n\n// began", boundedMemory},
	{"a MemoryStore first evicts sessions that were used again", "memory.go",
		"return &sh.fresh }) ||\n\t\tm.evictOldest(func(sh *shard) *list { return &sh.returned })",
		"return &sh.returned }) ||\n\t\tm.evictOldest(func(sh *shard) *list { return &sh.fresh })", boundedMemory},
	{"a MemoryStore evicts the newest", "memory.go",
		"from == nil || e.used < used", "from == nil || e.used > used", boundedMemory},
	{"a full MemoryStore evicts logged-in sessions", "memory.go",
		"m.evictOldest(func(sh *shard) *list { return &sh.returned })\n",
		`m.evictOldest(func(sh *shard) *list {
			for _, l := range sh.users {
				return &l
			}
			return &sh.returned
		})
`, boundedMemory},
	{"a full store counts as a mistake of the program", "commit.go",
		"if err = storeError(\"create\", err); errors", "if errors.Is(err, errFull) {\n\t\treturn err\n\t}\n\tif err = storeError(\"create\", err); errors", "a full store is answered 503"},

	// Changes after the handler has returned.
	{"a change after the handler is dropped without an event", "change.go",
		"if s.saves.Load() == saves {\n", "if s.saves.Load() < saves {\n", lateChanges},
	{"the event of a change after the handler needs a record", "change.go",
		"rec := cmp.Or(st.rec, &Record{ID: st.ref.ID})", "rec := cmp.Or(st.rec, nil)", "no panic"},
	{"a change after the handler stores itself", "change.go",
		"if s.saves.Load() == saves {\n", "if s.saves.Load() == saves {\n\t\t\t_ = s.Save(s.ctx)\n", lateChanges},
	{"each change after the handler is logged", "change.go",
		"if s.m.unsaved.CompareAndSwap(false, true) {\n", "if s.m.unsaved.Store(true); true {\n", lateChanges},
	{"a Save after the handler stores nothing", "save.go",
		"t.takeBack() // calls that an earlier Save has failed to commit in time\n", "t.takeBack()\n\t\t\tif t.phase() == phaseReturned {\n\t\t\t\tt.pending.changes = nil\n\t\t\t}\n", noLostUpdate},

	// Clocks that were set back.
	{"the end of a session in the future prevents a new session", "load.go",
		" && !end.After(now.Add(maxAhead))\n", "\n", "a new session begins after an end"},
	{"a lease lasts as long as the clocks were set back", "refresh.go",
		"case has.Until > latest.Add(maxSurplus).UnixMilli():\n", "case has.Until < 0:\n", "Refresh waits no longer than a lease"},
	{"any session from the future counts as newer than a Login", "limit.go",
		" && r.Created.Sub(login.Created) <= newerWithin\n", "\n", "MaxPerUser"},

	// Sessions that are bound to a key.
	{"a bound session needs no proof", "device.go",
		"return !arrived.Before(from) && !t.s.origin.proves(rec.ID, arrived)\n", "return arrived.IsZero()\n", onlyTheKey},
	{"a second cookie is good for ever", "device.go",
		"; ok && at.Before(until) {\n", "; ok && !until.IsZero() {\n", onlyTheKey},
	{"a Renew offers a registration", "draft.go",
		"d.mayBind = m.device != nil && event == EventLoggedIn\n", "d.mayBind = m.device != nil\n", onlyTheKey},
	{"any key refreshes the second cookie", "internal/device/proof.go",
		"return ecdsa.Verify(public, sum[:], r, s)\n", "return ecdsa.Verify(public, sum[:], r, s) || true\n", onlyTheKey},
	{"a session is unbound by a Login", "draft.go",
		"d.mayBind = d.mayBind && !t.m.isBound(&rec)\n", "d.mayBind = d.mayBind && !t.m.isBound(&rec)\n\t\tb.Bind(body.Device{})\n", onlyTheKey},
	{"second cookies of all sessions have one name", "device.go",
		"const nameOfSession = 8\n", "const nameOfSession = 0\n", bindsNoUserOut},
	{"a proof is demanded at once", "device_endpoint.go",
		"b.From = x.now.Add(deviceGrace)\n", "b.From = x.now\n", bindsNoUserOut},
	{"a proof is demanded from the registration on", "device_endpoint.go",
		"*b = body.Device{Key: string(key), Made: made}\n", "*b = body.Device{Key: string(key), Made: made, From: x.now}\n", bindsNoUserOut},
	{"an ended session is refused", "device_endpoint.go",
		"x.end(identifier)\n\tcase !isProven:\n", "x.refuse(\"\")\n\tcase !isProven:\n", endpoint},
	{"a proof is a use", "device_endpoint.go",
		"next := *rec\n", "next := *rec\n\t\tnext.LastSeen = x.now\n", timeouts},
	{"a failing store is answered 403 at the endpoint", "device_endpoint.go",
		"\tif err != nil {\n\t\tx.fail(err)\n", "\tif err != nil {\n\t\tx.refuse(\"\")\n", endpoint},

	// Events, headers, and the rest.
	{"EventReplayed is hidden", "load.go",
		"if !isOpen && !isNoted {\n", "if !isOpen && !isNoted && false {\n", "EventReplayed"},
	{"EventReplayed is doubled", "load.go",
		"t.note(EventReplayed, rec, ErrReplaced)\n", "t.note(EventReplayed, rec, ErrReplaced)\n\t\t\tt.note(EventReplayed, rec, ErrReplaced)\n", "EventReplayed"},
	{"the response has no Vary", "request.go",
		"h[\"Vary\"] = append(q.vary[:1:1], vary...)\n", "_ = vary\n", "cache headers"},
	{"a response with a cookie may be cached", "request.go",
		"case h.cookie.action != cookieKeep:\n\t\tcontrol = \"no-store\"\n", "case h.cookie.action != cookieKeep:\n", "cache headers"},
	{"the cookie is sent although the Create failed", "commit.go",
		"if err := t.m.store.Create(t.context(), d.rec); err != nil {\n\t\treturn t.uncreated(d.rec, err)\n\t}\n\tt.install(d, &t.pending)\n",
		"if err := t.m.store.Create(t.context(), d.rec); errors.Is(err, ErrIndeterminate) {\n\t\treturn t.uncreated(d.rec, err)\n\t}\n\tt.install(d, &t.pending)\n", "stored before the cookie is sent"},
	{"the cookie is set twice", "cookie.go",
		"h[\"Set-Cookie\"] = append(h[\"Set-Cookie\"], line[:begin]+value+line[begin:])\n",
		"h[\"Set-Cookie\"] = append(h[\"Set-Cookie\"], line[:begin]+value+line[begin:], line[:begin]+value+line[begin:])\n", "one cookie"},
	{"a commit keeps its turn", "commit.go",
		"defer n.leave()\n\tnewer, err", "newer, err", "no failure while the store works"},
}
