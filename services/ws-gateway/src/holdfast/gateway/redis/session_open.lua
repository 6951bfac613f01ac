-- Open a session for a new connection: continue the one that was asked for, or begin a fresh one.
--
-- KEYS[1], [2]   session asked for, fresh session (hashes: sub, tenant, topics, node, generation)
-- KEYS[3]        the subject's open connections (sorted set: session id by the second from which it counts no more)
-- KEYS[4], [5]   names of the token and of its subject in the revocations; keys of their own in the release before
-- KEYS[6]        revocations (hash: name by second; copied, once it is complete), see messaging/revocations.py
-- ARGV[1], [2]   id asked for or '', fresh id
-- ARGV[3], [4]   sub and tenant of the token   [5] second in which it was issued
-- ARGV[6]        topics of a fresh session (JSON)   [7] this node's channel
-- ARGV[8]        seconds that a session lives   [9] seconds that a connection counts   [10] most connections
-- ARGV[11]       how often the client has connected in this session, or ''
-- Returns {outcome, id, generation, topics}: 'continued' or 'fresh'; or {'foreign'}, {'revoked'}, {'unsure'},
-- {'crowded'}, {'late'} and no change. 'unsure': Redis was emptied, and nobody knows which tokens are revoked.
local revoked = redis.call('HMGET', KEYS[6], KEYS[4], KEYS[5], 'copied')
local subject = math.max(tonumber(revoked[2] or -1), tonumber(redis.call('GET', KEYS[5]) or -1))
if revoked[1] or redis.call('EXISTS', KEYS[4]) == 1 or subject >= tonumber(ARGV[5]) then
    return {'revoked'}
end
if not revoked[3] then
    return {'unsure'}
end
local held = redis.call('HMGET', KEYS[1], 'sub', 'tenant', 'generation', 'node', 'topics', 'attempt')
local is_known = held[1] and held[2] and held[3]
if is_known and (held[1] ~= ARGV[3] or held[2] ~= ARGV[4]) then
    return {'foreign'}
end
-- A hello that was held up on its way must not end the connection that its client has made since.
if is_known and held[6] and ARGV[11] ~= '' and tonumber(ARGV[11]) < tonumber(held[6]) then
    return {'late'}
end
local id = is_known and ARGV[1] or ARGV[2]
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
if not redis.call('ZSCORE', KEYS[3], id) and redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[10]) then
    return {'crowded'}
end
redis.call('ZADD', KEYS[3], now + ARGV[9], id)
redis.call('EXPIRE', KEYS[3], ARGV[9])
if is_known then
    local generation = redis.call('HINCRBY', KEYS[1], 'generation', 1)
    redis.call('HSET', KEYS[1], 'node', ARGV[7])
    if ARGV[11] ~= '' then
        redis.call('HSET', KEYS[1], 'attempt', ARGV[11])
    end
    redis.call('EXPIRE', KEYS[1], ARGV[8])
    -- The older connection may still be open, there or here. A notice that is lost is made up for by its next save.
    redis.call('PUBLISH', held[4], 'taken ' .. id .. ' ' .. held[3])
    return {'continued', id, generation, held[5]}
end
redis.call('HSET', KEYS[2], 'sub', ARGV[3], 'tenant', ARGV[4], 'topics', ARGV[6], 'node', ARGV[7], 'generation', 1)
if ARGV[11] ~= '' then
    redis.call('HSET', KEYS[2], 'attempt', ARGV[11])
end
redis.call('EXPIRE', KEYS[2], ARGV[8])
return {'fresh', id, 1, ARGV[6]}
