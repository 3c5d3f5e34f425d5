"""The Lua scripts of the rollout store. Each is one atomic step; none uses the clock of Redis.

Keys under a namespace `ns`:
- `rollout:<id>` hash: spec, mode, lane, position, attempt, state, runner, started_at, status
- `lanes` set of lanes (`<mode>:<project>`); `queue:<lane>` sorted set: rollout id → position (lower is first)
- `seq` counts positions; a position is the count at which the rollout was queued, less its priority times
  `PRIORITY_STEP`, so that a retried rollout keeps its place
- `delayed` sorted set: rollout id → when its next attempt may start (ms)
- `served` hash: lane → its virtual time; field "" is that of the lane served last
- `paused` hash: "=<project>" or "*" → `<ms>:<0 or 1>`, the last decision
- `leases` sorted set: trace id → when the lease is over (ms)
- `end:<trace id>` the first end; `unsettled` sorted set: trace id → when it ended (ms)
- `calls:<trace id>` set of call ids, fixed by the end; `last:<trace id>` hash: result of the last call
- `versions:<trace id>` hash: policy → the version that the attempt keeps to
- `task:<id>` the accepted event; `ended` count of ended rollouts
- `whole` exists once the state matches the log; without it nothing is claimed or started, and the log is read again
"""

PRIORITY_STEP = 2**42
"""Positions between two priorities; with at most 1000 of them a score stays exact as a double."""

ENQUEUE = """
-- KEYS: rollout, lanes, seq, queue  ARGV: id, spec, mode, lane, priority offset
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local position = string.format('%.0f', redis.call('INCR', KEYS[3]) - tonumber(ARGV[5]))
redis.call('HSET', KEYS[1], 'spec', ARGV[2], 'mode', ARGV[3], 'lane', ARGV[4], 'position', position,
  'attempt', 0, 'state', 'queued')
redis.call('SADD', KEYS[2], ARGV[4])
redis.call('ZADD', KEYS[4], position, ARGV[1])
return 1
"""

CLAIM = """
-- KEYS: lanes, leases, delayed, served, paused, whole
-- ARGV: ns, limit, runner, started_at, now_ms, lease_ms, whose ('*' or '=<project>'), then pairs of mode and share
if redis.call('EXISTS', KEYS[6]) == 0 then return {} end
local ns = ARGV[1]
local function paused(whose)
  local word = redis.call('HGET', KEYS[5], whose)
  return word and string.sub(word, -1) == '1'
end
for _, id in ipairs(redis.call('ZRANGE', KEYS[3], '-inf', ARGV[5], 'BYSCORE', 'LIMIT', 0, 1000)) do
  redis.call('ZREM', KEYS[3], id)
  local row = redis.call('HMGET', ns .. ':rollout:' .. id, 'lane', 'position')
  if row[1] then redis.call('ZADD', ns .. ':queue:' .. row[1], row[2], id) end
end
if paused('*') then return {} end
local shares = {}
for at = 8, #ARGV, 2 do shares[ARGV[at]] = tonumber(ARGV[at + 1]) end
local now = tonumber(redis.call('HGET', KEYS[4], '') or '0')
local names = redis.call('SMEMBERS', KEYS[1])
table.sort(names)
local open = {}
for _, name in ipairs(names) do
  local mode, project = string.match(name, '^([^:]*):(.*)$')
  local waiting = redis.call('ZCARD', ns .. ':queue:' .. name)
  local ours = ARGV[7] == '*' or ARGV[7] == '=' .. project
  if waiting > 0 and ours and not paused('=' .. project) then
    local time = tonumber(redis.call('HGET', KEYS[4], name) or '0')
    open[#open + 1] = {name = name, waiting = waiting, time = time, share = shares[mode] or 1}
  end
end
local claimed = {}
while #claimed < tonumber(ARGV[2]) do
  local first = nil
  for _, lane in ipairs(open) do
    if lane.waiting > 0 and (not first or math.max(lane.time, now) < math.max(first.time, now)) then first = lane end
  end
  if not first then break end
  local id = redis.call('ZPOPMIN', ns .. ':queue:' .. first.name)[1]
  first.waiting = first.waiting - 1
  local key = ns .. ':rollout:' .. (id or '')
  local found = redis.call('HMGET', key, 'spec', 'attempt', 'state')
  if found[1] and found[3] == 'queued' then
    now = math.max(first.time, now)
    first.time = now + 1 / first.share
    redis.call('HSET', KEYS[4], '', string.format('%.17g', now), first.name, string.format('%.17g', first.time))
    redis.call('HSET', key, 'state', 'running', 'runner', ARGV[3], 'started_at', ARGV[4])
    redis.call('ZADD', KEYS[2], ARGV[6], id .. string.format('%04x', tonumber(found[2])))
    claimed[#claimed + 1] = {id, found[2], found[1]}
  end
end
return claimed
"""

RESTORE = """
-- KEYS: rollout, lanes, seq, delayed, end, unsettled
-- ARGV: ns, id, trace, spec, mode, lane, offset, attempt, state, status, started_at, runner, ready_ms,
--   the end of one that ran, when it ended (ms), ttl
local known = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'lane')
local attempt = tonumber(ARGV[8])
if known[1] then
  local behind = tonumber(known[2]) < attempt or (tonumber(known[2]) == attempt and ARGV[9] ~= 'queued')
  if known[3] and (known[1] ~= 'queued' or not behind) then return 0 end
  if not known[3] and known[1] ~= 'queued' then return 0 end
  if known[3] then redis.call('ZREM', ARGV[1] .. ':queue:' .. known[3], ARGV[2]) end
  redis.call('ZREM', KEYS[4], ARGV[2])
end
redis.call('HSET', KEYS[1], 'spec', ARGV[4], 'mode', ARGV[5], 'lane', ARGV[6], 'attempt', ARGV[8], 'state', ARGV[9])
if ARGV[9] == 'ended' then
  redis.call('HSET', KEYS[1], 'status', ARGV[10])
  redis.call('EXPIRE', KEYS[1], ARGV[16])
  return 1
end
local position = string.format('%.0f', redis.call('INCR', KEYS[3]) - tonumber(ARGV[7]))
redis.call('HSET', KEYS[1], 'position', position)
redis.call('SADD', KEYS[2], ARGV[6])
if ARGV[9] == 'running' then
  redis.call('HSET', KEYS[1], 'started_at', ARGV[11], 'runner', ARGV[12])
  redis.call('SET', KEYS[5], ARGV[14], 'EX', ARGV[16])
  redis.call('ZADD', KEYS[6], ARGV[15], ARGV[3])
elseif ARGV[13] ~= '0' then
  redis.call('ZADD', KEYS[4], ARGV[13], ARGV[2])
else
  redis.call('ZADD', ARGV[1] .. ':queue:' .. ARGV[6], position, ARGV[2])
end
return 1
"""

UNCLAIM = """
-- KEYS: rollout, leases  ARGV: ns, id, trace, attempt
if redis.call('ZREM', KEYS[2], ARGV[3]) == 0 then return 0 end
local found = redis.call('HMGET', KEYS[1], 'attempt', 'lane', 'position')
if found[1] ~= ARGV[4] or not found[2] then return 0 end
redis.call('HSET', KEYS[1], 'state', 'queued')
redis.call('ZADD', ARGV[1] .. ':queue:' .. found[2], found[3], ARGV[2])
return 1
"""

BEGIN = """
-- KEYS: rollout, leases, whole  ARGV: trace, lease_ms, then the row's fields and values
if redis.call('EXISTS', KEYS[3]) == 0 then return -1 end
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
return 1
"""

EXTEND = """
-- KEYS: leases  ARGV: trace, lease_ms
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return 1
"""

ADD_CALL = """
-- KEYS: rollout, end, calls, last  ARGV: attempt, call, ttl, and where there is a note: error, finish, output
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local found = redis.call('HMGET', KEYS[1], 'attempt', 'state')
if found[1] and (found[1] ~= ARGV[1] or found[2] ~= 'running') then return 0 end
local new = redis.call('SADD', KEYS[3], ARGV[2])
redis.call('EXPIRE', KEYS[3], ARGV[3])
if new == 1 and ARGV[6] then
  local seen = redis.call('HMGET', KEYS[4], 'output', 'repeats')
  local repeats = 1
  if ARGV[6] ~= '' and seen[1] == ARGV[6] then repeats = tonumber(seen[2]) + 1 end
  redis.call('HSET', KEYS[4], 'call', ARGV[2], 'error', ARGV[4], 'finish', ARGV[5], 'output', ARGV[6],
    'repeats', repeats)
  redis.call('EXPIRE', KEYS[4], ARGV[3])
end
return 1
"""

SHOW_CALLS = """
-- KEYS: of attempts  ARGV: replica, ttl_ms, then each attempt's calls; '' for none
for number, key in ipairs(KEYS) do
  local calls = ARGV[number + 2]
  if calls == '' then
    redis.call('HDEL', key, ARGV[1])
  else
    redis.call('HSET', key, ARGV[1], calls)
    redis.call('PEXPIRE', key, ARGV[2])
  end
end
return 1
"""

KEEP_VERSION = """
-- KEYS: versions  ARGV: policy, version, instead_of, ttl
local kept = redis.call('HGET', KEYS[1], ARGV[1])
if kept and kept ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
"""

END = """
-- KEYS: rollout, end, leases, unsettled, calls  ARGV: trace, attempt, stored, now_ms, lease_over, ttl, interrupted
local existing = redis.call('GET', KEYS[2])
if existing then return {'earlier', existing, redis.call('SMEMBERS', KEYS[5])} end
local found = redis.call('HMGET', KEYS[1], 'attempt', 'state')
if found[1] ~= ARGV[2] or found[2] ~= 'running' then
  redis.call('ZREM', KEYS[3], ARGV[1])
  return {'not_running'}
end
if ARGV[5] == '1' then
  local lease = redis.call('ZSCORE', KEYS[3], ARGV[1])
  if lease and tonumber(lease) > tonumber(ARGV[4]) then return {'leased'} end
end
if ARGV[7] == '1' then redis.call('HINCRBY', KEYS[1], 'interrupted', 1) end
redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[6])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[4], ARGV[1])
return {'first', ARGV[3], redis.call('SMEMBERS', KEYS[5])}
"""

WITHDRAW = """
-- KEYS: rollout, end, delayed, unsettled, calls  ARGV: ns, id, trace, attempt, stored, now_ms, started_at, ttl
local existing = redis.call('GET', KEYS[2])
if existing then return {'earlier', existing, redis.call('SMEMBERS', KEYS[5])} end
local found = redis.call('HMGET', KEYS[1], 'attempt', 'state', 'lane')
if found[1] ~= ARGV[4] or found[2] ~= 'queued' then return {'not_running'} end
redis.call('ZREM', ARGV[1] .. ':queue:' .. found[3], ARGV[2])
redis.call('ZREM', KEYS[3], ARGV[2])
redis.call('HSET', KEYS[1], 'state', 'running', 'runner', '', 'started_at', ARGV[7])
redis.call('SET', KEYS[2], ARGV[5], 'EX', ARGV[8])
redis.call('ZADD', KEYS[4], ARGV[6], ARGV[3])
return {'first', ARGV[5], redis.call('SMEMBERS', KEYS[5])}
"""

SETTLE = """
-- KEYS: rollout, unsettled, delayed, ended, calls  ARGV: ns, id, trace, final, status, ttl, ready_ms (0: at once)
if redis.call('ZREM', KEYS[2], ARGV[3]) == 0 then return 0 end
redis.call('EXPIRE', KEYS[5], ARGV[6])
if ARGV[4] == '1' then
  redis.call('HSET', KEYS[1], 'state', 'ended', 'status', ARGV[5])
  redis.call('EXPIRE', KEYS[1], ARGV[6])
  redis.call('INCR', KEYS[4])
else
  redis.call('HINCRBY', KEYS[1], 'attempt', 1)
  redis.call('HSET', KEYS[1], 'state', 'queued')
  if ARGV[7] ~= '0' then
    redis.call('ZADD', KEYS[3], ARGV[7], ARGV[2])
  else
    local row = redis.call('HMGET', KEYS[1], 'lane', 'position')
    redis.call('ZADD', ARGV[1] .. ':queue:' .. row[1], row[2], ARGV[2])
  end
end
return 1
"""

PAUSE = """
-- KEYS: paused  ARGV: whose, at_ms, 0 or 1
local word = redis.call('HGET', KEYS[1], ARGV[1])
if word and tonumber(string.match(word, '^%d+')) > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ':' .. ARGV[3])
return 1
"""

COUNTS = """
-- KEYS: lanes, leases, delayed, ended, paused  ARGV: ns
local lanes = {}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  lanes[#lanes + 1] = name
  lanes[#lanes + 1] = redis.call('ZCARD', ARGV[1] .. ':queue:' .. name)
end
return {lanes, redis.call('ZCARD', KEYS[2]), redis.call('ZCARD', KEYS[3]), redis.call('GET', KEYS[4]) or '0',
  redis.call('HGETALL', KEYS[5])}
"""
