package session

import (
	"bytes"
	"container/heap"
	"strings"
	"sync"
	"time"
)

// A shard holds the records whose ids have the same hash, so that requests of different sessions
// seldom wait for the same lock.
type shard struct {
	mu       sync.Mutex
	entries  map[string]*memoryEntry
	users    map[string]list
	fresh    list // anonymous, never loaded
	returned list // anonymous, loaded at least once
	expiring byExpiry
	_        [64]byte // keeps the locks of two shards on different cache lines
}

// A memoryEntry is a record in a MemoryStore: 128 bytes, the id and the data. It is in the map and
// the heap of its shard and in one list: fresh or returned of the shard if it is anonymous,
// otherwise the list of its user.
type memoryEntry struct {
	id, user                         string
	data                             []byte
	created, seen, deadline, expires int64 // Unix milliseconds
	version                          uint64
	used                             int64 // time of the last use in Unix nanoseconds, while anonymous
	prev, next                       *memoryEntry
	at                               int32 // index in the heap
	back                             bool  // loaded since it was created
}

func newEntry(r *Record, now time.Time) *memoryEntry {
	e := &memoryEntry{id: strings.Clone(r.ID)}
	e.set(r, now)
	return e
}

// set stores r, which has the id of e. Texts that may be part of a larger allocation, such as a
// request body, are copied, because size would not count that allocation.
func (e *memoryEntry) set(r *Record, now time.Time) {
	if e.user != r.User {
		e.user = strings.Clone(r.User)
	}
	e.data, e.version, e.used = r.Data, r.Version, now.UnixNano()
	if cap(e.data) > len(e.data) { // data of the Manager has no spare capacity
		e.data = bytes.Clone(e.data)
	}
	e.created, e.seen = r.Created.UnixMilli(), r.LastSeen.UnixMilli()
	e.deadline, e.expires = r.Deadline.UnixMilli(), r.Expires.UnixMilli()
}

func (e *memoryEntry) record() *Record {
	return &Record{
		ID: e.id, User: e.user, Data: e.data,
		Created: time.UnixMilli(e.created), LastSeen: time.UnixMilli(e.seen),
		Deadline: time.UnixMilli(e.deadline), Expires: time.UnixMilli(e.expires),
		Version: e.version,
	}
}

// size returns the memory of the entry in bytes, with its share of map, heap and list.
func (e *memoryEntry) size() int64 { return sizeOf(e.id, e.user, e.data) }

func sizeOf(id, user string, data []byte) int64 {
	const overhead = 128 + 16 + 48 + 16 // the entry, rounding, map, heap
	n := int64(len(id) + len(data) + overhead)
	if user != "" {
		n += int64(2*len(user) + 64)
	}
	return n
}

func (sh *shard) insert(e *memoryEntry) {
	sh.entries[e.id] = e
	heap.Push(&sh.expiring, e)
	sh.link(e)
}

func (sh *shard) remove(e *memoryEntry) {
	delete(sh.entries, e.id)
	heap.Remove(&sh.expiring, int(e.at))
	sh.unlink(e)
}

// link appends e to its list.
func (sh *shard) link(e *memoryEntry) {
	if e.user == "" {
		sh.list(e).push(e)
		return
	}
	l := sh.users[e.user]
	l.push(e)
	sh.users[e.user] = l
}

// unlink removes e from its list.
func (sh *shard) unlink(e *memoryEntry) {
	if e.user == "" {
		sh.list(e).remove(e)
		return
	}
	l := sh.users[e.user]
	if l.remove(e); l.front == nil {
		delete(sh.users, e.user)
	} else {
		sh.users[e.user] = l
	}
}

// list returns the list of an anonymous entry.
func (sh *shard) list(e *memoryEntry) *list {
	if e.back {
		return &sh.returned
	}
	return &sh.fresh
}

// A list is a linked list of entries, the least recently used first.
type list struct{ front, last *memoryEntry }

func (l *list) push(e *memoryEntry) {
	e.prev, e.next = l.last, nil
	if l.last == nil {
		l.front = e
	} else {
		l.last.next = e
	}
	l.last = e
}

func (l *list) remove(e *memoryEntry) {
	if e.prev == nil {
		l.front = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		l.last = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.prev, e.next = nil, nil
}

// byExpiry implements heap.Interface. The first entry is the one that expires first.
type byExpiry []*memoryEntry

func (h byExpiry) Len() int { return len(h) }

func (h byExpiry) Less(i, j int) bool { return h[i].expires < h[j].expires }

func (h byExpiry) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = int32(i), int32(j)
}

func (h *byExpiry) Push(x any) {
	e := x.(*memoryEntry)
	e.at = int32(len(*h))
	*h = append(*h, e)
}

func (h *byExpiry) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}
