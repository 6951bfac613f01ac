-- Acknowledge finished messages and fetch new ones, in one call. Bodies and ids are laid out as Dramatiq's.
--
-- KEYS[1] queue of messages that were given back (list, as Dramatiq has it)   [2] message bodies (hash)
--     [3] ids this consumer has fetched and not acknowledged (set)   [4] heartbeats (sorted set)
--     [5] queue in turns (sorted set)   [6] last turns (hash), see ring.lua
-- ARGV[1] now in ms   [2] consumer's id   [3] messages wanted   [4…] ids to acknowledge
redis.call('ZADD', KEYS[4], ARGV[1], ARGV[2])
if #ARGV > 3 then
    redis.call('SREM', KEYS[3], unpack(ARGV, 4))
    redis.call('HDEL', KEYS[2], unpack(ARGV, 4))
end
local wanted, bodies, fetched = tonumber(ARGV[3]), {}, {}
local function take(id)
    local body = redis.call('HGET', KEYS[2], id)
    if body then
        fetched[#fetched + 1] = id
        bodies[#bodies + 1] = body
    end
end
while #bodies < wanted do
    local id = redis.call('LPOP', KEYS[1])
    if not id then
        break
    end
    take(id)
end
while #bodies < wanted do
    local asked = wanted - #bodies
    local first = redis.call('ZPOPMIN', KEYS[5], asked)
    for i = 1, #first, 2 do
        take(first[i])
    end
    if #first < 2 * asked then
        redis.call('DEL', KEYS[6])  -- nobody waits, so nobody has had more than others
        break
    end
    local reached = tonumber(redis.call('HGET', KEYS[6], '') or '0')
    redis.call('HSET', KEYS[6], '', string.format('%.17g', math.max(reached, tonumber(first[#first]))))
end
if #fetched > 0 then
    redis.call('SADD', KEYS[3], unpack(fetched))
end
return bodies
