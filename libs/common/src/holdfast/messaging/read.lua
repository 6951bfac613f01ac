-- Where a topic stands, and what came after an offset.
--
-- KEYS[1], [2]   meta hash and stream of the topic
-- ARGV[1] offset after which entries are wanted, or '' for none   [2] most entries   [3] window in seconds
-- ARGV[4] seconds that a topic without updates is remembered: anybody with a token can ask for any number of those
-- Returns {epoch, newest offset, oldest offset in the window or -1, {offset, body, offset, body, …}}; no entries when
-- there are more than wanted, or some have left the window (never a part of them).
--
-- A topic that nobody has published to gets its epoch here, so that every subscriber has a position to resume from.
-- Reading keeps the epoch alive: a topic that is quiet for longer than the window must not look like a gap.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local life = string.sub(run, 1, 12)
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch or string.sub(epoch, 1, 12) ~= life then
    local now = redis.call('TIME')
    epoch = life .. '-' .. now[1] .. now[2]
    redis.call('DEL', KEYS[2])
    redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', 0)
end
local top = tonumber(redis.call('HGET', KEYS[1], 'offset'))
redis.call('EXPIRE', KEYS[1], top > 0 and ARGV[3] or ARGV[4])
local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
local first = oldest[1] and tonumber(string.match(oldest[1][1], '^%d+')) or -1
local entries = {}
local since = tonumber(ARGV[1])
if since and since < top and top - since <= tonumber(ARGV[2]) and first >= 0 and first <= since + 1 then
    for _, entry in ipairs(redis.call('XRANGE', KEYS[2], (since + 1) .. '-0', '+')) do
        entries[#entries + 1] = tonumber(string.match(entry[1], '^%d+'))
        entries[#entries + 1] = entry[2][2]
    end
end
return {epoch, top, first, entries}
