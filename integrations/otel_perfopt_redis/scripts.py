"""What Redis does for a tier, in one step each: Lua scripts, which it runs one at a time.

The keys of a tier have one hash tag, so that a cluster keeps them in one slot and a script may use them all:

* ``head``: a `records.Head`, which says what is valid. It is read together with the records.
* ``facts``, a hash: ``born``, as in the head; ``longest``, how long a record may be kept; ``run``, which server it was; and for
  each tag that was invalidated the number and the time of that, under ``t:`` and the tag. Head and facts count only together:
  a Redis that needs room may forget a key, and must not forget that a tag was invalidated and remember the records that had it.
* ``recent``, a sorted set: the number of the last change of each kind of each key, as far as they are remembered; those after the
  number that the empty member has, are.
* ``changes``, a stream: the last changes, each with its number, who made it, of which kind it was, and of which key or tag.
* ``e:`` and the key: a record. See `records`.
* ``head:load:`` and the key of a record: who loads it, if one process at a time may.

A record is valid if it was made after the last change of everything, and of each of its tags. When it is written, all changes
since its mark count, those of its key included; what is not remembered may have been anything.

Scripts that must work in a Redis which is full begin with a command that is always allowed: after one that writes, Redis lets a
script finish.
"""

from collections.abc import Sequence
from hashlib import sha1

__all__ = ("CHANGE", "CLEAR", "HISTORY", "JOIN", "KEEP", "READ", "RELEASE", "WRITE", "Script")

HISTORY = 600
"""For how many seconds changes are remembered; records that took longer to make are not kept."""

KEEP = 10_000
"""How many changes are remembered, about, and how many tags before it is looked which of them can be forgotten."""

_COMMON = f"""
local HISTORY, KEEP = {HISTORY}, {KEEP}
local HEAD, RECORD, SIZE, FRESH_UNTIL = '<dddd', '<ddddd', 40, 24  -- see records.py
local born, seq, cleared, tagged

local function now()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1000000
end

local function text(number)
  return string.format('%.0f', number)
end

local function find()  -- the head, if it is there and the facts are
  local head = redis.call('GET', KEYS[1])
  if head then born, seq, cleared, tagged = struct.unpack(HEAD, head) end
  return head and redis.call('HGET', KEYS[2], 'born') == text(born)
end

local function keep()
  redis.call('SET', KEYS[1], struct.pack(HEAD, born, seq, cleared, tagged))
end

local function moment()
  return struct.pack('<ddddd', born, seq, cleared, tagged, now())
end

local function server()  -- which one this is, and since when it runs; '' if it does not tell
  local told = redis.pcall('INFO', 'server')
  return type(told) == 'string' and told:match('run_id:(%x+)') or ''
end

local function begin()  -- a life without a past
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
  born = math.floor(now() * 1000000)
  seq, cleared, tagged = born, 0, 0
  keep()
  redis.call('HSET', KEYS[2], 'born', text(born), 'longest', '0', 'run', server())
  redis.call('ZADD', KEYS[3], text(born), '')
end

local function find_or_begin()
  redis.call('HDEL', KEYS[2], '')
  if not find() then begin() end
end

local function note(sender, how, what)  -- the next change
  seq = seq + 1
  keep()
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', KEEP, text(seq) .. '-0', 'by', sender, how, what)
  redis.call('EXPIRE', KEYS[4], HISTORY)
end

local function note_key(sender, how, key)
  note(sender, how, key)
  local is_new = redis.call('ZADD', KEYS[3], text(seq), how .. key) == 1
  local count = is_new and redis.call('ZCARD', KEYS[3])
  if count == 1 then
    redis.call('ZADD', KEYS[3], text(seq - 1), '')
  elseif is_new and count > KEEP + 100 then
    local forgotten = redis.call('ZPOPMIN', KEYS[3], 100)
    redis.call('ZADD', KEYS[3], forgotten[#forgotten], '')
  end
end

local function is_changed(how, key, made)  -- whether a key was changed since
  return made < seq and tonumber(redis.call('ZSCORE', KEYS[3], how .. key) or 0) > made
end

local function is_known(made)  -- whether all changes of keys since are remembered
  return made >= seq or tonumber(redis.call('ZSCORE', KEYS[3], '') or seq) <= made
end

local function is_tagged_out(data, position, made)  -- whether one of the tags there was invalidated since
  if made >= tagged then return false end
  for _ = 1, struct.unpack('<I4', data, position) do
    local size = struct.unpack('<I4', data, position + 4)
    local found = redis.call('HGET', KEYS[2], 't:' .. data:sub(position + 8, position + 7 + size))
    if found and tonumber(found:match('^%d+')) > made then return true end
    position = position + 4 + size
  end
  return false
end

local function fresh_until(data)  -- nothing if it is not valid
  if not data or #data < SIZE then return nil end
  local life, made, _, fresh = struct.unpack(RECORD, data)
  if life == born and made >= cleared and not is_tagged_out(data, SIZE + 1, made) then return fresh end
end

local function lock_of(key)
  return KEYS[1] .. ':load:' .. key
end

local function release(key, sender)
  if redis.call('GET', lock_of(key)) == sender then redis.call('DEL', lock_of(key)) end
end
"""


class Script:
    """A script, and the name by which Redis knows it.

    Args:
        source: what comes after the functions that all scripts share.
    """

    def __init__(self, source: str) -> None:
        self.source = _COMMON + source
        self.name = sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[bytes], *arguments: bytes | int) -> tuple[str | bytes | int, ...]:
        """Return the command that runs it; the first keys are the four that are not those of records."""
        return ("EVALSHA", self.name, len(keys), *keys, *arguments)


JOIN = Script("""
-- To be asked on each new connection. ARGV: the last mark that is known. Returns the head and the time.
local run, known = server(), find() and redis.call('HGET', KEYS[2], 'run')
-- What another server has, or this one after a restart, may lack the last changes; what has gone back in time, does.
local is_another = known and run ~= '' and known ~= '' and known ~= run
local is_back = known and text(born) == ARGV[1] and seq < tonumber(ARGV[2])
if not known or is_another or is_back then
  begin()
elseif known == '' and run ~= '' then
  redis.pcall('HSET', KEYS[2], 'run', run)
end
return moment()
""")

READ = Script("""
-- KEYS: records too. ARGV: who asks, and for how many milliseconds it wants to be the only one that loads what is missing; or
-- nothing. Returns the head and the time, and for each key the record, nothing, or how long another one may take to load it.
if not find() then return {} end
local time = now()
local found = {moment()}
for at = 5, #KEYS do
  local data, wait = redis.call('GET', KEYS[at]), nil
  local fresh = fresh_until(data)
  if not fresh then data = false end
  if ARGV[2] and (fresh or 0) <= time then
    local lock = lock_of(KEYS[at])
    local taken = redis.pcall('SET', lock, ARGV[1], 'NX', 'PX', ARGV[2])
    if not taken and redis.call('GET', lock) ~= ARGV[1] then wait = redis.call('PTTL', lock) end
  end
  found[at - 3] = wait and {data, wait} or data
end
return found
""")

WRITE = Script("""
-- KEYS: a record too. ARGV: who writes, the terms, the tags, the value. Returns the head and the time.
local life, made, marked, replaces, age, fresh_for, keep_for = struct.unpack('<dddBddd', ARGV[2])
local key, time = KEYS[5], now()
release(key, ARGV[1])
if not find() then begin() end
if life ~= born or cleared > made then return moment() end
local is_wanted = keep_for > 0 and time - marked <= HISTORY and is_known(made) and not is_changed('gone', key, made)
  and not is_tagged_out(ARGV[3], 1, made)
local is_stale = is_changed('stale', key, made)
if replaces == 1 then
  note_key(ARGV[1], 'set', key)
  if not is_wanted then redis.call('DEL', key) end
elseif is_changed('set', key, made) then
  return moment()
end
if not is_wanted then return moment() end
local terms = struct.pack(RECORD, born, made, time - age, is_stale and 0 or time + fresh_for, time + keep_for)
redis.call('SET', key, terms .. ARGV[3] .. ARGV[4], 'PX', text(math.ceil(keep_for * 1000)))
if keep_for > tonumber(redis.call('HGET', KEYS[2], 'longest')) then redis.call('HSET', KEYS[2], 'longest', text(keep_for + 1)) end
return moment()
""")

CHANGE = Script("""
-- KEYS: records too. ARGV: who asks, and 'gone' or 'stale'. Returns the head and the time, and how many were fresh.
find_or_begin()
local time, count = now(), 0
for at = 5, #KEYS do
  local key = KEYS[at]
  local fresh = fresh_until(redis.call('GET', key))
  if fresh and fresh > time then count = count + 1 end
  note_key(ARGV[1], ARGV[2], key)
  if fresh and ARGV[2] == 'stale' then
    redis.call('SETRANGE', key, FRESH_UNTIL, struct.pack('<d', 0))
  else
    redis.call('DEL', key)
  end
end
return {moment(), count}
""")

CLEAR = Script("""
-- ARGV: who asks, and a tag, or nothing for everything. Returns the head and the time.
find_or_begin()
local function clear()
  note(ARGV[1], 'all', '')
  cleared = seq
  keep()
  local facts = redis.call('HMGET', KEYS[2], 'longest', 'run')
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[2], 'born', text(born), 'longest', facts[1], 'run', facts[2])
end
if not ARGV[2] then
  clear()
  return moment()
end
local time = now()
note(ARGV[1], 'tag', ARGV[2])
tagged = seq
keep()
redis.call('HSET', KEYS[2], 't:' .. ARGV[2], text(seq) .. ' ' .. text(time))
if redis.call('HLEN', KEYS[2]) <= tonumber(redis.call('HGET', KEYS[2], 'room') or KEEP) then return moment() end
-- Forget the tags that no record can have any more; if too many are left, all records have to go with them.
local oldest = time - math.max(HISTORY, tonumber(redis.call('HGET', KEYS[2], 'longest'))) - 1
local facts = redis.call('HGETALL', KEYS[2])
for at = 1, #facts, 2 do
  local since = facts[at]:sub(1, 2) == 't:' and tonumber(facts[at + 1]:match(' (%d+)'))
  if since and since < oldest then redis.call('HDEL', KEYS[2], facts[at]) end
end
local left = redis.call('HLEN', KEYS[2])
if left > 10 * KEEP then
  clear()
else
  redis.call('HSET', KEYS[2], 'room', text(math.max(KEEP, 2 * left)))
end
return moment()
""")

RELEASE = Script("""
-- KEYS: records too. ARGV: who does not load them after all.
for at = 5, #KEYS do release(KEYS[at], ARGV[1]) end
return 1
""")
