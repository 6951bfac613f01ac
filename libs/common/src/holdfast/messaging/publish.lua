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
--
-- Updates of one call share topics, their tenant's say. Each topic's hash and expiries are touched once a call.
local seconds, entries = ARGV[1], ARGV[2]
local life = string.sub(string.match(redis.call('INFO', 'server'), 'run_id:(%w+)'), 1, 12)

-- Which updates are new, and how many of them each topic gets.
local new, topics, by_meta = {}, {}, {}
local key, argument = 1, 3
while argument < #ARGV do
    local count = tonumber(ARGV[argument + 1])
    if redis.call('SET', KEYS[key], '', 'NX', 'EX', seconds) then
        local update = {body = ARGV[argument], topics = {}, channels = {}}
        new[#new + 1] = update
        for i = 1, count do
            local meta = KEYS[key + 2 * i - 1]
            local topic = by_meta[meta]
            if not topic then
                topic = {meta = meta, stream = KEYS[key + 2 * i], count = 0}
                by_meta[meta] = topic
                topics[#topics + 1] = topic
            end
            topic.count = topic.count + 1
            update.topics[i], update.channels[i] = topic, ARGV[argument + 1 + i]
        end
    end
    key, argument = key + 1 + 2 * count, argument + 2 + count
end

local began
for _, topic in ipairs(topics) do
    local epoch = redis.call('HGET', topic.meta, 'epoch')
    if not epoch or string.sub(epoch, 1, 12) ~= life then
        if not began then
            local now = redis.call('TIME')
            began = now[1] .. now[2]
        end
        epoch = life .. '-' .. began
        redis.call('DEL', topic.stream)
        redis.call('HSET', topic.meta, 'epoch', epoch, 'offset', 0)
    end
    topic.epoch = epoch
    topic.offset = redis.call('HINCRBY', topic.meta, 'offset', topic.count) - topic.count
    redis.call('EXPIRE', topic.meta, seconds)
end

for _, update in ipairs(new) do
    for i, topic in ipairs(update.topics) do
        topic.offset = topic.offset + 1
        redis.call('XADD', topic.stream, 'MAXLEN', '~', entries, topic.offset .. '-0', 'u', update.body)
        redis.call('PUBLISH', update.channels[i], topic.epoch .. ':' .. topic.offset .. ' ' .. update.body)
    end
end

for _, topic in ipairs(topics) do
    redis.call('EXPIRE', topic.stream, seconds)
end
return #new
