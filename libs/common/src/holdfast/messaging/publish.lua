-- Publish one update to all its topics, once: stream order, offset order and publish order are the same.
--
-- KEYS[1]            marker of this update (event, version, step)
-- KEYS[2i], [2i+1]   meta hash (epoch, offset) and stream of topic i
-- ARGV[1] body   [2] window in seconds   [3] window in entries, about
-- ARGV[3+i]          channel of topic i
-- Returns 1, or 0 when the update was published before (the relay's second try, say).
--
-- The epoch starts with Redis's run id. After a restart from an older dump, or a failover that lost its tail, the run id
-- differs, so the topic gets a new epoch and clients are told of a gap instead of trusting a reused offset. The time
-- behind it tells apart two lives of a topic within one run (FLUSHALL, expiry).
if not redis.call('SET', KEYS[1], '', 'NX', 'EX', ARGV[2]) then
    return 0
end
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local life = string.sub(run, 1, 12)
for i = 1, #ARGV - 3 do
    local meta, stream = KEYS[2 * i], KEYS[2 * i + 1]
    local epoch = redis.call('HGET', meta, 'epoch')
    if not epoch or string.sub(epoch, 1, 12) ~= life then
        local now = redis.call('TIME')
        epoch = life .. '-' .. now[1] .. now[2]
        redis.call('DEL', stream)
        redis.call('HSET', meta, 'epoch', epoch, 'offset', 0)
    end
    local offset = redis.call('HINCRBY', meta, 'offset', 1)
    redis.call('XADD', stream, 'MAXLEN', '~', ARGV[3], offset .. '-0', 'u', ARGV[1])
    redis.call('EXPIRE', stream, ARGV[2])
    redis.call('EXPIRE', meta, ARGV[2])
    redis.call('PUBLISH', ARGV[3 + i], epoch .. ':' .. offset .. ' ' .. ARGV[1])
end
return 1
