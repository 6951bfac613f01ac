-- Keep a session alive and its topics up to date, unless another connection has it by now.
--
-- KEYS[1]        session   [2] the subject's open connections   [3], [4], [5] revocations, all as in session_open.lua
-- ARGV[1], [2]   id and generation   [3], [4] sub and tenant   [5] second in which the token was issued
-- ARGV[6], [7]   topics (JSON), this node's channel   [8], [9] seconds that a session lives and a connection counts
-- ARGV[11]       how often the client has connected in this session, or ''
-- ARGV[10]       1 while the connection is open, 0 when it has ended
-- Returns 'kept', 'taken' (nothing was changed), 'revoked', or 'unsure': kept, and nobody knows which tokens are revoked.
--
-- A session that is missing is written again: Redis may have been flushed while its connection lived on. So is one of a
-- generation before this one: Redis was restored from an older dump, or an older connection was the first to write.
local generation = redis.call('HGET', KEYS[1], 'generation')
if generation and tonumber(generation) > tonumber(ARGV[2]) then
    return 'taken'
end
redis.call('HSET', KEYS[1], 'sub', ARGV[3], 'tenant', ARGV[4], 'topics', ARGV[6], 'node', ARGV[7], 'generation', ARGV[2])
if ARGV[11] ~= '' then
    redis.call('HSET', KEYS[1], 'attempt', ARGV[11])
end
redis.call('EXPIRE', KEYS[1], ARGV[8])
if ARGV[10] == '0' then
    redis.call('ZREM', KEYS[2], ARGV[1])
    return 'kept'
end
redis.call('ZADD', KEYS[2], redis.call('TIME')[1] + ARGV[9], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[9])
local revoked = redis.call('HMGET', KEYS[5], KEYS[3], KEYS[4], 'copied')
local subject = math.max(tonumber(revoked[2] or -1), tonumber(redis.call('GET', KEYS[4]) or -1))
if revoked[1] or redis.call('EXISTS', KEYS[3]) == 1 or subject >= tonumber(ARGV[5]) then
    return 'revoked'
end
return revoked[3] and 'kept' or 'unsure'
