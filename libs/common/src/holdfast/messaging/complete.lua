-- Say up to where the copy of the revocations is complete, if it is still the one that was being filled.
--
-- KEYS[1]      the copy, as in revoke.lua
-- ARGV[1]      mark of the filling; gone when Redis was emptied meanwhile, another one when somebody else began later
-- ARGV[2]      seq up to which everything has been copied
-- Returns 1, or 0 when nothing was changed.
if redis.call('HGET', KEYS[1], 'filling') ~= ARGV[1] then
    return 0
end
redis.call('HSET', KEYS[1], 'copied', ARGV[2])
redis.call('HDEL', KEYS[1], 'filling')
return 1
