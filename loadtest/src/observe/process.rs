//! CPU and memory of the processes, from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use super::{LOOK_EVERY, Post, Process, ProcessLook};
use crate::target::Target;

/// Name of this process in the report.
pub const OWN: &str = "generator";

/// Processor time used, and memory resident.
fn look(pid: u32) -> Option<(f64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let pages: u64 = fields.get(21)?.parse().ok()?;
    let cpu_s = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    Some((cpu_s, pages * rustix::param::page_size() as u64))
}

/// Processor time that this process has used.
pub fn own_cpu_s() -> f64 {
    look(std::process::id()).map_or(0.0, |(cpu_s, _)| cpu_s)
}

/// Memory resident of a process, in MiB; none where it is gone.
pub fn resident_mib(pid: u32) -> Option<f64> {
    look(pid).map(|(_, bytes)| bytes as f64 / f64::from(1 << 20))
}

pub(super) fn observe(post: &Post, target: &Target) {
    let mut before: BTreeMap<String, (u32, f64, Instant)> = BTreeMap::new();
    post.every(LOOK_EVERY, |post| {
        let servers = target.servers.iter().map(|server| (server.name().to_owned(), server.pid()));
        for (name, pid) in servers.chain([(OWN.to_owned(), Some(std::process::id()))]) {
            let Some((cpu_s, rss_bytes)) = pid.and_then(look) else { continue };
            let now = Instant::now();
            let pid = pid.unwrap_or(0);
            let last = before.insert(name.clone(), (pid, cpu_s, now));
            // One that was started again begins anew.
            if let Some((_, cpu_before, at)) = last.filter(|(pid_before, ..)| *pid_before == pid) {
                let cores = (cpu_s - cpu_before) / (now - at).as_secs_f64().max(1e-3);
                let look = ProcessLook { at_s: post.epoch.elapsed().as_secs_f64(), cores, rss_bytes };
                push(&mut post.lock().processes, &name, look);
            }
        }
    });
}

fn push(processes: &mut Vec<Process>, name: &str, look: ProcessLook) {
    match processes.iter_mut().find(|process| process.name == name) {
        Some(process) => process.looks.push(look),
        None => processes.push(Process { name: name.to_owned(), looks: vec![look] }),
    }
}
