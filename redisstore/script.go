package redisstore

import (
	"crypto/sha1"
	"encoding/hex"
)

// A script runs in one step on the server. It knows a record's header by its
// offsets, counted from 1 in Lua, and compares strings for equality only: Lua
// orders them by the server's locale. The times that it compares with are the
// caller's clock, for the server's may differ.
type script struct{ source, sha string }

func newScript(source string) script {
	sum := sha1.Sum([]byte(source))
	return script{source, hex.EncodeToString(sum[:])}
}

// What a script answers. Saving answers instead, when it has cleared the user,
// the user there was.
const (
	done       = 0 // now, or by an earlier try whose reply was lost
	conflict   = 1
	missing    = 2
	exists     = 3
	corrupt    = 4
	indexFirst = 5 // Deadline moves: nothing was saved
	grows      = 6 // nothing was saved
)

// ARGV: the record, the time, milliseconds to live.
var createScript = newScript(`
local is = redis.call('GETRANGE', KEYS[1], 0, 72)
if is ~= '' then
	if #is < 73 or string.byte(is) ~= 1 then return 4 end
	if struct.unpack('>i8', is, 22) > tonumber(ARGV[2]) then
		return string.sub(is, 2, 9) == string.sub(ARGV[1], 2, 9) and 0 or 3
	end
end
if tonumber(ARGV[3]) > 0 then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3]) end
return 0
`)

// ARGV: the record, the time, the version to replace, "1" if the user's index has
// the record's Deadline already, and perhaps the size up to which the record may
// grow. Where a stored clock is later than the record's, it is kept as it stands,
// with its checksum; the Deadline serves as Expires where that is past it.
var saveScript = newScript(saveSource)

const saveSource = `
local is = redis.call('GETRANGE', KEYS[1], 0, 72)
if is == '' then return 2 end
if #is < 73 or string.byte(is) ~= 1 then return 4 end
if struct.unpack('>i8', is, 22) <= tonumber(ARGV[2]) then return 2 end
local version = string.sub(is, 2, 9)
if version == string.sub(ARGV[1], 2, 9) then return 0 end
if version ~= ARGV[3] then return 1 end
if ARGV[4] ~= '1' and struct.unpack('>i8', ARGV[1], 34) > struct.unpack('>i8', is, 34) then return 5 end
if ARGV[5] and #ARGV[1] > math.max(redis.call('STRLEN', KEYS[1]), tonumber(ARGV[5])) then return 6 end
local was = struct.unpack('>I4', is, 70)
local user = 0
if was > 0 and struct.unpack('>I4', ARGV[1], 70) == 0 then
	user = redis.call('GETRANGE', KEYS[1], 73, 72 + was)
end
local record = ARGV[1]
local wasSeen, _, wasEnds = struct.unpack('>i8i4i8', is, 10)
local seen, _, ends, _, deadline = struct.unpack('>i8i4i8i4i8', record, 10)
if wasSeen > seen then
	record = string.sub(record, 1, 9) .. string.sub(is, 10, 21) .. string.sub(record, 22)
end
if wasEnds > ends then
	ends = wasEnds
	record = string.sub(record, 1, 21) .. string.sub(is, 22, 33) .. string.sub(record, 34)
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

// shrinkScript is saveScript for when memory is full: it may do what Redis
// refuses then, but the record does not grow.
var shrinkScript = newScript("#!lua flags=allow-oom\n" + saveSource)

// tombstoneRoom is the size up to which a record may grow although memory is
// full: an ending is always smaller, and gone within a minute.
const tombstoneRoom = 256

// ARGV: the clocks seen and expires, the time. It writes over what is there and
// so needs no memory. A clock is compared by its time, and moves as it stands,
// with its checksum.
//
// A session that is in use is touched over and over, and to move the key's own
// end costs as much as all the rest. So it is moved further than it must be, by a
// quarter, and then not for the next few touches. It is only when Redis forgets
// the record: from Expires on that is none, for every script and for Load. Who
// never comes back is never touched, and his record goes when it expires.
var touchScript = newScript(`#!lua flags=allow-oom
local is = redis.call('GETRANGE', KEYS[1], 0, 72)
if is == '' then return 2 end
if #is < 73 or string.byte(is) ~= 1 then return 4 end
local wasSeen, _, was, _, deadline = struct.unpack('>i8i4i8i4i8', is, 10)
local now = tonumber(ARGV[3])
if was <= now then return 2 end
local seen, expires = ARGV[1], ARGV[2]
local ends = struct.unpack('>i8', expires)
if ends > deadline then ends, expires = deadline, string.sub(is, 34, 45) end
if ends <= was then ends, expires = was, string.sub(is, 22, 33) end
if struct.unpack('>i8', seen) <= wasSeen then
	if ends == was then return 0 end
	seen = string.sub(is, 10, 21)
end
redis.call('SETRANGE', KEYS[1], 9, seen .. expires)
if ends - now > redis.call('PTTL', KEYS[1]) then
	redis.call('PEXPIRE', KEYS[1], math.floor((ends - now) * 1.25))
end
return 0
`)

// ARGV: the id, its Deadline, the time before which entries are forgotten,
// milliseconds to live. An entry moves forward only, and the index lives as
// long as its last entry.
var indexScript = newScript(`
redis.call('ZADD', KEYS[1], 'GT', ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[3])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
return 0
`)
