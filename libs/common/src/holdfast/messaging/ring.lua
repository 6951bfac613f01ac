-- Put messages on a queue, each in its turn, and ring its bell.
--
-- KEYS[1] queue in turns (sorted set of message ids by turn)   [2] message bodies (hash, as Dramatiq has it)   [3] bell (list)
--     [4] last turns (hash: the last one given to each share, and under "" the one that was heard last)
-- ARGV[1] bells at most   [5i-3 …] id, body, share, step and bonus of message i; some hundreds at most, for Lua's stack
--
-- Start-time fair queuing: a share (a tenant's messages of one priority) has its next turn one step after its last one, or
-- now if that is past. The bonus is how many turns the priority is worth. Scores are exact up to 2^53.
--
-- One bell a message, so that as many sleeping consumers wake as there is work for; a bound, because nobody takes the bells
-- of a queue whose consumers are all busy. A bell too many costs an empty fetch.
local most = tonumber(ARGV[1])
local known = redis.call('HMGET', KEYS[4], '', ARGV[4])
local now = tonumber(known[1] or '0')
local bodies, turns, bells, changed = {}, {}, {}, {}
local last = { [ARGV[4]] = tonumber(known[2] or '0') }
for i = 2, #ARGV, 5 do
    local share, bonus = ARGV[i + 2], tonumber(ARGV[i + 4])
    local before = last[share] or tonumber(redis.call('HGET', KEYS[4], share) or '0')
    local turn = math.max(now, before + tonumber(ARGV[i + 3]))
    last[share] = turn
    bodies[#bodies + 1], bodies[#bodies + 2] = ARGV[i], ARGV[i + 1]
    turns[#turns + 1], turns[#turns + 2] = string.format('%.17g', turn - bonus), ARGV[i]
    if #bells < most then
        bells[#bells + 1] = ''
    end
end
for share, turn in pairs(last) do
    changed[#changed + 1], changed[#changed + 2] = share, string.format('%.17g', turn)
end
redis.call('HSET', KEYS[2], unpack(bodies))
redis.call('HSET', KEYS[4], unpack(changed))
redis.call('ZADD', KEYS[1], unpack(turns))
redis.call('LPUSH', KEYS[3], unpack(bells))
redis.call('LTRIM', KEYS[3], 0, most - 1)
