-- Acknowledge finished messages and fetch new ones, in one call. Same layout as Dramatiq's own "ack" and "fetch".
--
-- KEYS[1] queue   [2] message bodies   [3] ids this consumer has fetched and not acknowledged (set)   [4] heartbeats (sorted set)
-- ARGV[1] now in ms   [2] consumer's id   [3] messages wanted   [4…] ids to acknowledge
redis.call('ZADD', KEYS[4], ARGV[1], ARGV[2])
if #ARGV > 3 then
    redis.call('SREM', KEYS[3], unpack(ARGV, 4))
    redis.call('HDEL', KEYS[2], unpack(ARGV, 4))
end
local bodies, fetched = {}, {}
while #bodies < tonumber(ARGV[3]) do
    local id = redis.call('LPOP', KEYS[1])
    if not id then
        break
    end
    local body = redis.call('HGET', KEYS[2], id)
    if body then
        fetched[#fetched + 1] = id
        bodies[#bodies + 1] = body
    end
end
if #fetched > 0 then
    redis.call('SADD', KEYS[3], unpack(fetched))
end
return bodies
