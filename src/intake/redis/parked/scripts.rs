//! The commands on a unit's sorted set. Each writes it with one command, or not at all.

use bytes::Bytes;

use super::member::{HEADER_BYTES, VERSION};
use crate::domain::{UnixMs, WaitReason};
use crate::redis::{Command, Failure, Script, Value, reply};

/// Members in one command: they become arguments.
pub const MEMBERS_MAX: usize = 1_000;
/// Bytes of members in one command, about.
pub const BYTES_MAX: usize = 1 << 20;

/// Stops unless the unit is owned as said: KEYS parked owner, ARGV fence. The fence is what the owner's value begins
/// with: `epoch|incarnation|`.
macro_rules! fenced {
    ($body:literal) => {
        concat!(
            "#!lua flags=allow-oom\n",
            "local owner = redis.call('GET', KEYS[2])\n",
            "if not owner then return redis.error_reply('STALE no owner at ' .. KEYS[2]) end\n",
            "if owner:sub(1, #ARGV[1]) ~= ARGV[1] then return redis.error_reply('STALE owned by ' .. owner) end\n",
            $body
        )
    };
}

/// ARGV fence score member …; → members that are new
static PARK: Script = Script::new("park", fenced!("return redis.call('ZADD', KEYS[1], unpack(ARGV, 2))\n"));
/// ARGV fence member …; → members that were there
static UNPARK: Script =
    Script::new("unpark", fenced!("return redis.call('ZREM', KEYS[1], unpack(ARGV, 2))\n"));

/// Where things stand in a member, for Lua, and whether it passes a filter: ARGV 3, 4, 5 are client, reason (its
/// number) and campaign, each empty for any. Its record begins behind 24 bytes, its strings 80 bytes further on.
macro_rules! with_members {
    ($head:literal, $body:literal) => {
        concat!(
            $head,
            r"
local byte, sub = string.byte, string.sub
local function names(m)
  local lc, li, lp = byte(m, 92), byte(m, 93), byte(m, 94)
  return sub(m, 105, 104 + lc), sub(m, 105 + lc, 104 + lc + li), sub(m, 105 + lc + li, 104 + lc + li + lp)
end
local function passes(m)
  if byte(m, 1) ~= 1 or #m < 104 then return false end
  if ARGV[4] ~= '' and byte(m, 2) ~= tonumber(ARGV[4]) then return false end
  if ARGV[3] == '' and ARGV[5] == '' then return true end
  local client, _, campaign = names(m)
  return (ARGV[3] == '' or ARGV[3] == client) and (ARGV[5] == '' or ARGV[5] == campaign)
end
local page = redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[1] + ARGV[2] - 1, 'WITHSCORES')
",
            $body
        )
    };
}

const _: () = assert!(VERSION == 1 && HEADER_BYTES == 24, "the scripts read members by these");

/// Counts and picks in a page of ranks. ARGV start count client reason campaign, after_since after_tie until_since
/// until_tie limit; → {members in the page, {group count …}, {member score …}}. A group is reason, lane, length of
/// client, client, campaign; members that this release cannot read are in the empty one. Picked are the `limit` first
/// behind `after` and before `until`, by since and tie (48 bits each: the scripting language has no wider integers).
static LOOK: Script = Script::new(
    "look",
    with_members!(
        "#!lua flags=no-writes",
        r"
local function word(m, at)
  local a, b, c, d, e, f = byte(m, at, at + 5)
  return ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f
end
local after, after_tie = tonumber(ARGV[6]), tonumber(ARGV[7])
local till, till_tie, limit = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local counts, picked = {}, {}
for at = 1, #page, 2 do
  local m = page[at]
  if byte(m, 1) ~= 1 or #m < 104 then
    counts[''] = (counts[''] or 0) + 1
  elseif passes(m) then
    local client, _, campaign = names(m)
    local group = string.char(byte(m, 2), byte(m, 32), #client) .. client .. campaign
    counts[group] = (counts[group] or 0) + 1
    if limit > 0 then
      local since, tie = word(m, 11), word(m, 49)
      if (since > after or (since == after and tie > after_tie))
        and (since < till or (since == till and tie < till_tie)) then
        picked[#picked + 1] = {since, tie, m, page[at + 1]}
      end
    end
  end
end
table.sort(picked, function(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end)
local groups, members = {}, {}
for group, count in pairs(counts) do
  groups[#groups + 1] = group
  groups[#groups + 1] = count
end
for at = 1, math.min(limit, #picked) do
  members[#members + 1] = picked[at][3]
  members[#members + 1] = picked[at][4]
end
return {#page / 2, groups, members}
"
    ),
);

/// Makes due, in a page of ranks, what passes the filter and is not: to the head of the set, in order, so that ranks
/// behind the page stay. ARGV start count client reason campaign id …; → {members in the page, made due}
static RELEASE: Script = Script::new(
    "release",
    with_members!(
        "#!lua flags=allow-oom",
        r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local wanted
for at = 6, #ARGV do
  wanted = wanted or {}
  wanted[ARGV[at]] = true
end
local due = {}
for at = 1, #page, 2 do
  local m = page[at]
  if tonumber(page[at + 1]) > now and passes(m) then
    local _, id = names(m)
    if not wanted or wanted[id] then
      due[#due + 1] = ARGV[1] + (at + 1) / 2
      due[#due + 1] = m
    end
  end
end
if #due > 0 then redis.call('ZADD', KEYS[1], 'XX', unpack(due)) end
return {#page / 2, #due / 2}
"
    ),
);

/// Where the set and its unit's owner are, and under which epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    pub parked: String,
    pub owner: String,
    pub epoch: u64,
    pub incarnation: String,
}

impl Fence {
    fn command(&self, script: &'static Script) -> Command {
        Command::script(script, &[self.parked.as_bytes(), self.owner.as_bytes()])
            .arg(format!("{}|{}|", self.epoch, self.incarnation))
    }

    /// Commands that add these, by when each is due.
    pub fn park(&self, members: &[(UnixMs, Bytes)]) -> Vec<Command> {
        let command = |run: &[(UnixMs, Bytes)]| {
            let mut command = self.command(&PARK);
            for (due, member) in run {
                command.push(*due);
                command.push(&member[..]);
            }
            command
        };
        runs(members, |(_, member)| member.len()).map(command).collect()
    }

    /// Commands that remove these.
    pub fn unpark(&self, members: &[Bytes]) -> Vec<Command> {
        let command = |run: &[Bytes]| {
            let mut command = self.command(&UNPARK);
            run.iter().for_each(|member| command.push(&member[..]));
            command
        };
        runs(members, Bytes::len).map(command).collect()
    }
}

/// Cuts into runs that one command bears.
fn runs<T>(mut rest: &[T], bytes_of: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take(MEMBERS_MAX).take_while(|one| {
            bytes += bytes_of(one);
            bytes <= BYTES_MAX
        });
        // One alone is taken, however large.
        let count = fits.count().max(1).min(rest.len());
        let (run, behind) = rest.split_at(count);
        rest = behind;
        (!run.is_empty()).then_some(run)
    })
}

/// Which members; empty: any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub client: String,
    pub reason: Option<WaitReason>,
    pub campaign: String,
}

impl Filter {
    fn on(&self, command: Command) -> Command {
        let reason = self.reason.map_or_else(String::new, |reason| (reason as u8).to_string());
        command.arg(&*self.client).arg(reason).arg(&*self.campaign)
    }
}

/// Where a member stands among all, the longest waiting first: since, and bits of the hash of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age {
    pub since: UnixMs,
    pub tie: u64,
}

impl Age {
    pub const FIRST: Age = Age { since: 0, tie: 0 };
    /// Behind every member's.
    pub const LAST: Age = Age { since: 1 << 48, tie: 0 };

    /// As the script computes it.
    pub fn of(member: &[u8]) -> Age {
        let word = |at: usize| member[at..at + 6].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        Age { since: word(10), tie: word(48) }
    }
}

/// Looks at `count` members from rank `start` on; picks up to `limit` behind `after` and before `until`.
pub fn look(parked: &str, start: usize, count: usize, filter: &Filter, pick: (Age, Age, usize)) -> Command {
    let command = Command::script(&LOOK, &[parked.as_bytes()]).arg(start).arg(count);
    let (after, until, limit) = pick;
    filter.on(command).arg(after.since).arg(after.tie).arg(until.since).arg(until.tie).arg(limit)
}

/// What was seen in a page.
#[derive(Debug, Default)]
pub struct Looked {
    pub member_count: usize,
    /// By group; the empty one is what this release cannot read.
    pub groups: Vec<(Vec<u8>, usize)>,
    pub picked: Vec<(Bytes, UnixMs)>,
}

fn strange(command: &str) -> Failure {
    Failure::Strange { command: command.to_owned(), expected: "what its script answers" }
}

pub fn read_look(value: Value) -> Result<Looked, Failure> {
    let parts: [Value; 3] = reply::array("look", value)?.try_into().map_err(|_| strange("look"))?;
    let [count, groups, picked] = parts;
    let mut looked = Looked { member_count: reply::int("look", count)? as usize, ..Looked::default() };
    let mut groups = reply::array("look", groups)?.into_iter();
    while let (Some(group), Some(count)) = (groups.next(), groups.next()) {
        let group = reply::bytes("look", group)?.ok_or_else(|| strange("look"))?;
        looked.groups.push((group, reply::int("look", count)? as usize));
    }
    looked.picked = scored("look", picked)?;
    Ok(looked)
}

/// Makes due, of `count` members from rank `start` on, what passes; of it, only `ids` if there are any (at most
/// [`MEMBERS_MAX`]).
pub fn release(parked: &str, start: usize, count: usize, filter: &Filter, ids: &[String]) -> Command {
    let command = Command::script(&RELEASE, &[parked.as_bytes()]).arg(start).arg(count);
    ids.iter().fold(filter.on(command), |command, id| command.arg(&**id))
}

/// Members in the page, and how many were made due.
pub fn read_release(value: Value) -> Result<(usize, usize), Failure> {
    let parts: [Value; 2] = reply::array("release", value)?.try_into().map_err(|_| strange("release"))?;
    let [count, released] = parts;
    Ok((reply::int("release", count)? as usize, reply::int("release", released)? as usize))
}

/// Members with their scores, as WITHSCORES answers them.
pub fn scored(command: &str, value: Value) -> Result<Vec<(Bytes, UnixMs)>, Failure> {
    let mut values = reply::array(command, value)?.into_iter();
    let mut members = Vec::with_capacity(values.len() / 2);
    while let (Some(member), Some(score)) = (values.next(), values.next()) {
        let member = reply::bytes(command, member)?.ok_or_else(|| strange(command))?;
        let score = match score {
            Value::Double(score) => score,
            text => reply::text(command, text)?
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| strange(command))?,
        };
        // A time in Unix ms is well within what a double keeps exactly.
        members.push((Bytes::from(member), score.max(0.0) as UnixMs));
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_bounded_in_count_and_bytes() {
        let lengths =
            |sizes: &[usize]| -> Vec<usize> { runs(sizes, |size| *size).map(<[usize]>::len).collect() };
        assert_eq!(lengths(&[]), [0; 0]);
        assert_eq!(lengths(&[1; 2_500]), [1_000, 1_000, 500]);
        assert_eq!(lengths(&[BYTES_MAX, 1, BYTES_MAX + 1, BYTES_MAX, 2]), [1, 1, 1, 1, 1]);
        assert_eq!(lengths(&[BYTES_MAX / 2; 5]), [2, 2, 1]);
    }
}
