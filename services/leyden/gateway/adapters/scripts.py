"""The Lua scripts of the rollout store: each is one atomic step, and none relies on a clock of Redis.

Keys under a namespace `ns`:
- `rollout:<id>` hash: spec, mode, attempt, state, runner, started_at, status
- `queue` list of rollout ids, claimed from the left
- `leases` sorted set: trace id → when the lease is over (ms)
- `end:<trace id>` the first end; `unsettled` sorted set: trace id → when it ended (ms)
- `calls:<trace id>` set of call ids, frozen by the end
- `task:<id>` the accepted event; `ended` count of rollouts that ended
"""

ENQUEUE = """
-- KEYS: rollout, queue  ARGV: id, spec, mode
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'spec', ARGV[2], 'mode', ARGV[3], 'attempt', 0, 'state', 'queued')
redis.call('RPUSH', KEYS[2], ARGV[1])
return 1
"""

CLAIM = """
-- KEYS: queue, leases  ARGV: ns, limit, runner, started_at, lease_ms
local claimed = {}
while #claimed < tonumber(ARGV[2]) do
  local id = redis.call('LPOP', KEYS[1])
  if not id then break end
  local key = ARGV[1] .. ':rollout:' .. id
  local found = redis.call('HMGET', key, 'spec', 'attempt', 'state')
  if found[1] and found[3] == 'queued' then
    redis.call('HSET', key, 'state', 'running', 'runner', ARGV[3], 'started_at', ARGV[4])
    redis.call('ZADD', KEYS[2], ARGV[5], id .. string.format('%04x', tonumber(found[2])))
    claimed[#claimed + 1] = {id, found[2], found[1]}
  end
end
return claimed
"""

UNCLAIM = """
-- KEYS: rollout, queue, leases  ARGV: id, trace, attempt
if redis.call('ZREM', KEYS[3], ARGV[2]) == 0 then return 0 end
if redis.call('HGET', KEYS[1], 'attempt') ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], 'state', 'queued')
redis.call('LPUSH', KEYS[2], ARGV[1])
return 1
"""

EXTEND = """
-- KEYS: leases  ARGV: trace, lease_ms
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return 1
"""

ADD_CALL = """
-- KEYS: rollout, end, calls  ARGV: attempt, call, ttl
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local found = redis.call('HMGET', KEYS[1], 'attempt', 'state')
if found[1] and (found[1] ~= ARGV[1] or found[2] ~= 'running') then return 0 end
redis.call('SADD', KEYS[3], ARGV[2])
redis.call('EXPIRE', KEYS[3], ARGV[3])
return 1
"""

END = """
-- KEYS: rollout, end, leases, unsettled, calls  ARGV: trace, attempt, stored, now_ms, lease_over, ttl
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
redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[6])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[4], ARGV[1])
return {'first', ARGV[3], redis.call('SMEMBERS', KEYS[5])}
"""

SETTLE = """
-- KEYS: rollout, unsettled, queue, ended, calls  ARGV: id, trace, final, status, ttl
if redis.call('ZREM', KEYS[2], ARGV[2]) == 0 then return 0 end
redis.call('EXPIRE', KEYS[5], ARGV[5])
if ARGV[3] == '1' then
  redis.call('HSET', KEYS[1], 'state', 'ended', 'status', ARGV[4])
  redis.call('EXPIRE', KEYS[1], ARGV[5])
  redis.call('INCR', KEYS[4])
else
  redis.call('HINCRBY', KEYS[1], 'attempt', 1)
  redis.call('HSET', KEYS[1], 'state', 'queued')
  redis.call('LPUSH', KEYS[3], ARGV[1])
end
return 1
"""
