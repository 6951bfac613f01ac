-- Put messages on a queue and ring its bell. Same layout as Dramatiq's own "enqueue".
--
-- KEYS[1] queue (list of message ids)   [2] message bodies (hash)   [3] bell (list)
-- ARGV[1] bells at most   [2i], [2i+1] id and body of message i
--
-- One bell a message, so that as many sleeping consumers wake as there is work for; a bound, because nobody takes the bells
-- of a queue whose consumers are all busy. A bell too many costs an empty fetch.
for i = 2, #ARGV, 2 do
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
    redis.call('RPUSH', KEYS[1], ARGV[i])
    redis.call('LPUSH', KEYS[3], '')
end
redis.call('LTRIM', KEYS[3], 0, ARGV[1] - 1)
