-- Write revocations into the copy that gateways ask.
--
-- KEYS[1]      the copy (hash: name of a token or subject by the second of its revocation; copied; filling)
-- ARGV[1]      channel to tell of each, or '' to tell nobody
-- ARGV[2]      seconds that the keys live which gateways of the release before ask
-- ARGV[3…]     name and second, in turn
for index = 3, #ARGV, 2 do
    local name, second = ARGV[index], ARGV[index + 1]
    -- An older one may come last: from a copying that read it before the subject was revoked again.
    if tonumber(redis.call('HGET', KEYS[1], name) or -1) < tonumber(second) then
        redis.call('HSET', KEYS[1], name, second)
    end
    redis.call('SET', name, second, 'EX', ARGV[2])
    if ARGV[1] ~= '' then
        redis.call('PUBLISH', ARGV[1], name)
    end
end
