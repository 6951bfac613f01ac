-- Publish updates to all their topics, each once: stream order, offset order and publish order are the same.
--
-- KEYS, of each update in turn   marker of the update (event, version, step); meta hash (epoch, offset) and stream of each topic
-- ARGV[1] window in seconds   [2] window in entries, about
-- ARGV[3…], of each update in turn   body; how many topics; channel of each topic
-- Returns how many were published: those that were before (the relay's second try, say) are left out.
--
-- The epoch starts with Redis's run id. After a restart from an older dump, or a failover that lost its tail, the run id
-- differs, so the topic gets a new epoch and clients are told of a gap instead of trusting a reused offset. The time
-- behind it tells apart two lives of a topic within one run (FLUSHALL, expiry).
local seconds, entries = ARGV[1], ARGV[2]
local life = string.sub(string.match(redis.call('INFO', 'server'), 'run_id:(%w+)'), 1, 12)

local function publish(body, meta, stream, channel)
    local epoch = redis.call('HGET', meta, 'epoch')
    if not epoch or string.sub(epoch, 1, 12) ~= life then
        local now = redis.call('TIME')
        epoch = life .. '-' .. now[1] .. now[2]
        redis.call('DEL', stream)
        redis.call('HSET', meta, 'epoch', epoch, 'offset', 0)
    end
    local offset = redis.call('HINCRBY', meta, 'offset', 1)
    redis.call('XADD', stream, 'MAXLEN', '~', entries, offset .. '-0', 'u', body)
    redis.call('EXPIRE', stream, seconds)
    redis.call('EXPIRE', meta, seconds)
    redis.call('PUBLISH', channel, epoch .. ':' .. offset .. ' ' .. body)
end

local published, key, argument = 0, 1, 3
while argument < #ARGV do
    local body, topics = ARGV[argument], tonumber(ARGV[argument + 1])
    if redis.call('SET', KEYS[key], '', 'NX', 'EX', seconds) then
        published = published + 1
        for i = 1, topics do
            publish(body, KEYS[key + 2 * i - 1], KEYS[key + 2 * i], ARGV[argument + 1 + i])
        end
    end
    key, argument = key + 1 + 2 * topics, argument + 2 + topics
end
return published
