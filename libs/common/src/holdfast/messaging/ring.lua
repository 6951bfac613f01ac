-- Put messages on a queue and ring its bell. Same layout as Dramatiq's own "enqueue".
--
-- KEYS[1] queue (list of message ids)   [2] message bodies (hash)   [3] bell (list)
-- ARGV[1] bells at most   [2i], [2i+1] id and body of message i; at most some thousands, as Lua's stack has to hold them
--
-- One bell a message, so that as many sleeping consumers wake as there is work for; a bound, because nobody takes the bells
-- of a queue whose consumers are all busy. A bell too many costs an empty fetch.
local most = tonumber(ARGV[1])
local ids, bells = {}, {}
for i = 2, #ARGV, 2 do
    ids[#ids + 1] = ARGV[i]
    if #bells < most then
        bells[#bells + 1] = ''
    end
end
redis.call('HSET', KEYS[2], unpack(ARGV, 2))
redis.call('RPUSH', KEYS[1], unpack(ids))
redis.call('LPUSH', KEYS[3], unpack(bells))
redis.call('LTRIM', KEYS[3], 0, most - 1)
