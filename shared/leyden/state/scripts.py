"""Lua scripts of the evidence store: one Redis command per call, for any number of items.

`KEYS` are (items, mark) of each subject in turn. The mark `kept` means that the subject is open until its items expire,
and closed from then on. Any other mark means that it is closed.
"""

ADD = """
local ttl, at, closed = tonumber(ARGV[1]), 2, {}
for s = 1, #KEYS, 2 do
  local mark, count = redis.call('GET', KEYS[s + 1]), tonumber(ARGV[at])
  local kept = mark == 'kept' and redis.call('EXISTS', KEYS[s]) == 1
  if mark and not kept then
    closed[#closed + 1] = (s - 1) / 2
  else
    for i = at + 1, at + 2 * count, 2 do redis.call('HSETNX', KEYS[s], ARGV[i], ARGV[i + 1]) end
    if not kept then redis.call('EXPIRE', KEYS[s], ttl) end
  end
  at = at + 1 + 2 * count
end
return closed
"""
"""`ARGV`: seconds until an open subject expires; then for each subject the number of items, their ids and values.

Returns the indices of the closed subjects.
"""

IDS_OF = """
local found = {}
for s = 1, #KEYS do
  local ids, sizes = redis.call('HKEYS', KEYS[s]), {}
  for i = 1, #ids do sizes[i] = #ids[i] end
  found[#found + 1], found[#found + 2] = table.concat(sizes, ' '), table.concat(ids)
end
return found
"""
"""`KEYS`: items keys only. Returns for each subject the ids' sizes in bytes, separated by spaces, and the ids joined.

One long reply parses faster than many short ones. Sizes, because an id may contain any character.
"""

ITEMS_OF = """
local found = {}
for s = 1, #KEYS do
  local flat, sizes = redis.call('HGETALL', KEYS[s]), {}
  for i = 1, #flat do sizes[i] = #flat[i] end
  found[#found + 1], found[#found + 2] = table.concat(sizes, ' '), table.concat(flat)
end
return found
"""
"""As `IDS_OF`, but each id is followed by its value."""

PICK = "local found = {} for s = 1, #KEYS do found[s] = redis.call('HGET', KEYS[s], ARGV[s]) end return found"
"""`KEYS` and `ARGV`: for each requested item the items key and the id. Returns the values."""

KEEP = """
for s = 1, #KEYS, 2 do
  redis.call('EXPIRE', KEYS[s], ARGV[1])
  redis.call('SET', KEYS[s + 1], 'kept', 'EX', ARGV[2])
end
"""
CLOSE = """
for s = 1, #KEYS, 2 do
  redis.call('DEL', KEYS[s])
  redis.call('SET', KEYS[s + 1], '1', 'EX', ARGV[1])
end
"""
