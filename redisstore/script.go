package redisstore

import (
	"crypto/sha1"
	"encoding/hex"
)

// A script runs atomically on the server. It addresses the fields of a record's header by
// offset, counted from 1 as Lua does. It compares strings for equality only, because Lua orders
// strings by the locale of the server. Times are compared with the clock of the caller, because
// the clock of the server may differ.
type script struct{ source, sha string }

func newScript(source string) script {
	sum := sha1.Sum([]byte(source))
	return script{source, hex.EncodeToString(sum[:])}
}

// Replies of the scripts. A save that clears the user replies with the name of the previous
// user instead.
const (
	replyDone       = 0 // applied, by this try or by an earlier one whose reply was lost
	replyConflict   = 1
	replyMissing    = 2
	replyExists     = 3
	replyCorrupt    = 4
	replyIndexFirst = 5 // Deadline moves, so the index must be written first; nothing was saved
	replyGrows      = 6 // the record would grow beyond the limit; nothing was saved
)

// replicateAgain is the part of a script that finds its own write applied, by a try whose reply was
// lost or that too few replicas had acknowledged. WAIT waits for what its own connection has
// written last, in Valkey and since Redis 7.2 for nothing if that is nothing. So the script writes,
// without memory and without a change: it sets the expiry that the key has.
const replicateAgain = `
	local left = redis.call('PTTL', KEYS[1])
	if left > 0 then redis.call('PEXPIRE', KEYS[1], left) end`

// createScript stores a new record. ARGV: the record, the current time, milliseconds to live.
var createScript = newScript(`
local stored = redis.call('GETRANGE', KEYS[1], 0, 72)
if stored ~= '' then
	if #stored < 73 or string.byte(stored) ~= 1 then return 4 end
	if struct.unpack('>i8', stored, 22) > tonumber(ARGV[2]) then
		if string.sub(stored, 2, 9) ~= string.sub(ARGV[1], 2, 9) then return 3 end
` + replicateAgain + `
		return 0
	end
end
if tonumber(ARGV[3]) > 0 then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3]) end
return 0
`)

// saveScript replaces a record. ARGV: the record; the current time; the version to replace; "1"
// if the user's index is up to date with the record's Deadline; optionally the size up to which
// the record may grow. If a stored clock is later than that of the record, the stored clock is
// kept, with its checksum. If Expires is after Deadline, the clock of Deadline is stored in its
// place.
var saveScript = newScript(saveSource)

const saveSource = `
local stored = redis.call('GETRANGE', KEYS[1], 0, 72)
if stored == '' then return 2 end
if #stored < 73 or string.byte(stored) ~= 1 then return 4 end
if struct.unpack('>i8', stored, 22) <= tonumber(ARGV[2]) then return 2 end
local version = string.sub(stored, 2, 9)
if version == string.sub(ARGV[1], 2, 9) then
` + replicateAgain + `
	return 0
end
if version ~= ARGV[3] then return 1 end
if ARGV[4] ~= '1' and struct.unpack('>i8', ARGV[1], 34) > struct.unpack('>i8', stored, 34) then return 5 end
if ARGV[5] and #ARGV[1] > math.max(redis.call('STRLEN', KEYS[1]), tonumber(ARGV[5])) then return 6 end
local was = struct.unpack('>I4', stored, 70)
local user = 0
if was > 0 and struct.unpack('>I4', ARGV[1], 70) == 0 then
	user = redis.call('GETRANGE', KEYS[1], 73, 72 + was)
end
local record = ARGV[1]
local wasSeen, _, wasEnds = struct.unpack('>i8i4i8', stored, 10)
local seen, _, ends, _, deadline = struct.unpack('>i8i4i8i4i8', record, 10)
if wasSeen > seen then
	record = string.sub(record, 1, 9) .. string.sub(stored, 10, 21) .. string.sub(record, 22)
end
if wasEnds > ends then
	ends = wasEnds
	record = string.sub(record, 1, 21) .. string.sub(stored, 22, 33) .. string.sub(record, 34)
end
if ends > deadline then
	ends = deadline
	record = string.sub(record, 1, 21) .. string.sub(record, 34, 45) .. string.sub(record, 34)
end
local life = math.min(ends - tonumber(ARGV[2]), 2 ^ 50)
if life > 0 then
	redis.call('SET', KEYS[1], record, 'PX', string.format('%.0f', life))
else
	redis.call('DEL', KEYS[1])
end
return user
`

// shrinkScript is saveScript for a server whose memory is full. Its flag permits the write that
// Redis would refuse, and the record may not grow.
var shrinkScript = newScript("#!lua flags=allow-oom\n" + saveSource)

// tombstoneRoom is the size in bytes up to which a record may grow although memory is full. A
// tombstone is always smaller and expires within a minute.
const tombstoneRoom = 256

// touchScript moves the clocks of a record. ARGV: the clocks seen and expires, the current
// time. It overwrites bytes in place and so needs no memory. Clocks are compared by time and
// copied with their checksums.
//
// To move the expiry of the Redis key costs as much as the rest of the script, and a session in
// use is touched often. The key's expiry is therefore set a quarter later than necessary, and
// the next few touches leave it alone. It only decides when Redis removes the record: every
// script and Load treat a record as absent from Expires on. A session that is not used again is
// not touched, so its key ends at Expires.
var touchScript = newScript(`#!lua flags=allow-oom
local stored = redis.call('GETRANGE', KEYS[1], 0, 72)
if stored == '' then return 2 end
if #stored < 73 or string.byte(stored) ~= 1 then return 4 end
local wasSeen, _, was, _, deadline = struct.unpack('>i8i4i8i4i8', stored, 10)
local now = tonumber(ARGV[3])
if was <= now then return 2 end
local seen, expires = ARGV[1], ARGV[2]
local ends = struct.unpack('>i8', expires)
if ends > deadline then ends, expires = deadline, string.sub(stored, 34, 45) end
if ends <= was then ends, expires = was, string.sub(stored, 22, 33) end
if struct.unpack('>i8', seen) <= wasSeen then
	if ends == was then return 0 end
	seen = string.sub(stored, 10, 21)
end
redis.call('SETRANGE', KEYS[1], 9, seen .. expires)
if ends - now > redis.call('PTTL', KEYS[1]) then
	redis.call('PEXPIRE', KEYS[1], math.floor((ends - now) * 1.25))
end
return 0
`)

// deleteScript is GETDEL, followed by WAIT. If there is no record, it also writes, for the reason
// that replicateAgain gives.
var deleteScript = newScript(`#!lua flags=allow-oom
local stored = redis.call('GETDEL', KEYS[1])
if not stored then
	redis.call('SET', KEYS[1], '')
	redis.call('DEL', KEYS[1])
end
return stored
`)

// indexScript adds or moves an entry of a user's index. ARGV: the id, its Deadline, the time
// before which entries are removed, milliseconds to live. An entry only moves forward in time,
// and the index lives as long as its last entry.
var indexScript = newScript(`
redis.call('ZADD', KEYS[1], 'GT', ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[3])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
return 0
`)
