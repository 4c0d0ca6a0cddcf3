//! The scripts of the board: the arithmetic of [`super::super::table`] in Lua. Each writes the key once, or not at
//! all, and may do so in a full Redis: what it writes replaces as much.

use crate::redis::Script;

/// KEYS: the board. ARGV: field, sequence, want (rate, calls), keep (rate, calls), permit (0 none, 1 holds, 2
/// wants), what it says of itself, another field and what it says there. Answers nothing where there is no state; else
/// now, sequence (0: overtaken), granted, kept, whether it has a permit, its own entry, and all fields as they were.
pub static BEAT: Script = Script::new(
    "breaker_beat",
    "#!lua flags=allow-oom
local all = redis.call('HGETALL', KEYS[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local terms, used_r, used_c, promised_r, promised_c, permits = nil, 0, 0, 0, 0, 0
local others, own = {}, nil
for i = 1, #all, 2 do
  if all[i] == 'state' then
    local is_json, state = pcall(cjson.decode, all[i + 1])
    if not is_json or type(state) ~= 'table' then return redis.error_reply('BOARD state damaged') end
    if state.format ~= 1 then return redis.error_reply('BOARD state of another format') end
    terms = state.terms
    if type(terms) ~= 'table' then return redis.error_reply('BOARD state damaged: terms') end
    for _, name in ipairs({'epoch', 'rate_per_s', 'calls', 'cap_rate_per_s', 'cap_calls', 'permits',
      'permit_ttl_ms', 'lease_ms', 'reserve_ms'}) do
      local value = terms[name]
      if type(value) ~= 'number' or not (value >= 0 and value < 9007199254740992) then
        return redis.error_reply('BOARD state damaged: ' .. name)
      end
    end
  elseif string.sub(all[i], 1, 2) == 'i:' then
    local seq, seen, til, kept_til, r, c, kr, kc, p_til, p_epoch = string.match(all[i + 1],
      '^1|(%d+)|(%d+)|(%d+)|(%d+)|(%d+)|(%d+)|(%d+)|(%d+)|(%d+)|(%d+)|')
    if not seq then return redis.error_reply('BOARD ' .. all[i] .. ' damaged, or of another format') end
    r, c, kr, kc = tonumber(r), tonumber(c), tonumber(kr), tonumber(kc)
    p_til, p_epoch = tonumber(p_til), tonumber(p_epoch)
    if all[i] == ARGV[1] then
      own = {tonumber(seq), p_til, p_epoch}
    elseif tonumber(seen) <= now + 1000 then
      others[#others + 1] = {p_til, p_epoch}
      if now < tonumber(til) then
        used_r, used_c = used_r + r, used_c + c
        promised_r, promised_c = promised_r + math.max(r, kr), promised_c + math.max(c, kc)
      elseif now < tonumber(kept_til) then
        used_r, used_c = used_r + kr, used_c + kc
        promised_r, promised_c = promised_r + kr, promised_c + kc
      end
    end
  end
end
if not terms then return {} end
local seq = tonumber(ARGV[2])
if own and seq <= own[1] then return {now, 0, 0, 0, 0, 0, 0, '', all} end
local room_r = math.max(0, terms.rate_per_s - promised_r)
local room_c = math.max(0, terms.calls - promised_c)
local r = math.min(tonumber(ARGV[3]), room_r, math.max(0, terms.cap_rate_per_s - used_r))
local c = math.min(tonumber(ARGV[4]), room_c, math.max(0, terms.cap_calls - used_c))
local kr, kc = math.min(tonumber(ARGV[5]), room_r), math.min(tonumber(ARGV[6]), room_c)
local p_til = 0
if ARGV[7] == '1' then
  if own and own[3] == terms.epoch then p_til = math.min(own[2], now + terms.permit_ttl_ms) end
elseif ARGV[7] == '2' then
  for _, other in ipairs(others) do
    if other[2] == terms.epoch and now < other[1] then permits = permits + 1 end
  end
  if permits < terms.permits then p_til = now + terms.permit_ttl_ms end
end
local til = now + terms.lease_ms + 1
local entry = string.format('1|%.0f|%.0f|%.0f|%.0f|%.0f|%.0f|%.0f|%.0f|%.0f|%.0f|', seq, now, til,
  til + terms.reserve_ms, r, c, kr, kc, p_til, terms.epoch) .. ARGV[8]
redis.call('HSET', KEYS[1], ARGV[1], entry, ARGV[9], ARGV[10])
local has = 0
if ARGV[7] == '2' and p_til > now then has = 1 end
return {now, seq, r, c, kr, kc, has, entry, all}",
);

/// KEYS: the board. ARGV: a first state, which stands unless there is one.
pub static BEGIN: Script = Script::new(
    "breaker_begin",
    "#!lua flags=allow-oom
return redis.call('HSETNX', KEYS[1], 'state', ARGV[1])",
);

/// KEYS: the board. ARGV: the version seen, when it was seen, the age from which that is too old, the next state.
pub static REPLACE: Script = Script::new(
    "breaker_replace",
    "#!lua flags=allow-oom
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if math.abs(now - tonumber(ARGV[2])) > tonumber(ARGV[3]) then return 0 end
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return 0 end
local is_json, seen = pcall(cjson.decode, state)
if not is_json or type(seen) ~= 'table' then return redis.error_reply('BOARD state damaged') end
if seen.version ~= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'state', ARGV[4])
return 1",
);

/// KEYS: the board. ARGV: a field, what must stand in it for it to be removed, and the field that goes with it.
pub static PRUNE: Script = Script::new(
    "breaker_prune",
    "#!lua flags=allow-oom
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1], ARGV[3])",
);

/// KEYS: the board. Answers now, and all fields.
pub static LOOK: Script = Script::new(
    "breaker_look",
    "#!lua flags=no-writes
local time = redis.call('TIME')
return {time[1] * 1000 + math.floor(time[2] / 1000), redis.call('HGETALL', KEYS[1])}",
);
