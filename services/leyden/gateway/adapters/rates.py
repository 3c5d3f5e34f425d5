"""Rate limits of keys, shared by all replicas: two token buckets per key in Redis, one script per limited call.

The `limits` package was considered: its asyncio strategies need one round trip per limit and two more for what is left,
and none can charge a call afterwards for the tokens that it used.
"""

from datetime import datetime
from typing import Any

from redis.asyncio import Redis

from leyden.events import KeyLimits
from leyden.gateway.core.keys import Level
from leyden.state import redis_step

FORGET_AFTER_MS = 3_600_000
"""A bucket without calls for this long is full, unless it was in debt by an hour's tokens."""

FILLED = """
local found = redis.call('HMGET', KEYS[1], 'requests', 'tokens', 'at')
local now, at = tonumber(ARGV[1]), tonumber(found[3])
at = at or now
if now < at then now = at end
local function level(kept, limit)
  if limit == 0 then return 0 end
  return math.min(limit, (tonumber(kept) or limit) + (now - at) * limit / 60000)
end
local requests_limit, tokens_limit = tonumber(ARGV[2]), tonumber(ARGV[3])
local requests, tokens = level(found[1], requests_limit), level(found[2], tokens_limit)
"""
KEPT = """
local moment = string.format('%.0f', now)
redis.call('HSET', KEYS[1], 'requests', tostring(requests), 'tokens', tostring(tokens), 'at', moment)
redis.call('PEXPIRE', KEYS[1], ARGV[5])
"""
TAKE = f"""
-- KEYS: bucket  ARGV: now_ms, requests a minute, tokens a minute (0: no limit), unused, forget_ms
{FILLED}
local admitted = (requests_limit == 0 or requests >= 1) and (tokens_limit == 0 or tokens >= 1)
if not admitted then return {{0, tostring(requests), tostring(tokens)}} end
if requests_limit > 0 then requests = requests - 1 end
{KEPT}
return {{1, tostring(requests), tostring(tokens)}}
"""
CHARGE = f"""
-- KEYS: bucket  ARGV: now_ms, requests a minute, tokens a minute, tokens used, forget_ms
{FILLED}
tokens = tokens - tonumber(ARGV[4])
{KEPT}
return 1
"""


class RedisRates:
    """`Rates` under `<namespace>:`. Limits are as exact as the gateways' clocks agree."""

    def __init__(self, redis: Redis, namespace: str, timeout_s: float = 5.0) -> None:
        self._ns = namespace
        self._timeout_s = timeout_s
        self._take = redis.register_script(TAKE)
        self._charge = redis.register_script(CHARGE)

    async def take(self, key_id: str, limits: KeyLimits, now: datetime) -> Level:
        admitted, requests, tokens = await self._run(self._take, key_id, limits, now, 0)
        return Level(bool(admitted), float(requests), float(tokens))

    async def charge(self, key_id: str, limits: KeyLimits, tokens: int, now: datetime) -> None:
        await self._run(self._charge, key_id, limits, now, tokens)

    async def _run(self, script: Any, key_id: str, limits: KeyLimits, now: datetime, tokens: int) -> Any:
        of_a_minute = [limits.requests_per_minute or 0, limits.tokens_per_minute or 0]
        arguments = [int(now.timestamp() * 1000), *of_a_minute, tokens, FORGET_AFTER_MS]
        async with redis_step(self._timeout_s):
            return await script([f"{self._ns}:{key_id}"], arguments)
