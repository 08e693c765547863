//! What becomes of a run in its groups: a pure decision.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{hold::Hold, newest::Newest, wake::place};
use crate::{
    CancelMode, GroupKey, Run, RunKey, RunState,
    store::{GroupMember, GroupSnapshot},
    workflow::parse_duration,
    workflow::{QueueLimits, Strategy},
};

/// What a decision is made from.
#[derive(Debug)]
pub(crate) struct Situation<'a> {
    /// The run: planned, or waiting.
    pub(crate) run: &'a Run,
    /// Its groups.
    pub(crate) groups: &'a [GroupSnapshot],
    /// Which runs are newer.
    pub(crate) newest: &'a Newest,
    /// What holds its workflow.
    pub(crate) hold: Option<&'a Hold>,
    /// Members that wait because their workflow is held: they are passed over, and replace nobody.
    pub(crate) held: &'a BTreeSet<RunKey>,
    /// The time.
    pub(crate) now: Timestamp,
}

/// What becomes of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GroupVerdict {
    /// It may be created, once these have been told to end.
    Admitted {
        /// Who, and how.
        replaces: BTreeMap<RunKey, CancelMode>,
        /// Older runs that wait, and now never start.
        supersedes: BTreeSet<RunKey>,
    },
    /// It waits.
    Queued {
        /// For what, for people.
        message: String,
        /// When it has waited for too long.
        deadline: Option<Timestamp>,
        /// Older runs that wait, and now never start.
        supersedes: BTreeSet<RunKey>,
    },
    /// A newer run has taken its place.
    Superseded {
        /// Which.
        by: RunKey,
    },
    /// It waited for too long, or may not wait.
    Expired {
        /// Why, for people.
        message: String,
    },
    /// What it asks for cannot be understood.
    Refused {
        /// Why, for people.
        message: String,
    },
}

/// Decides all groups of a run together; the order in which they come does not matter.
///
/// A run that `replace`s takes the place of every older member of the group, whatever that one asks
/// for itself; hence a run that meets a newer member that replaces is superseded, in whichever order
/// the two arrive. Older members that wait are superseded as soon as the newer one is decided. Older
/// members under way are told to end when the newer one is admitted: with `replace` alone that is
/// the same moment; with `replace` in one group and `queue` in another, the run waits for its place
/// in the queue and leaves those under way alone until then.
///
/// A run that `queue`s is admitted when fewer than its limit are under way in the group and nobody
/// waits there before it, by the order of intake. This order is the same in every group. So the
/// first of all that wait waits only for runs under way, which end, and never for somebody who waits
/// for it.
pub(crate) fn decide(situation: &Situation<'_>) -> GroupVerdict {
    let Situation { run, newest, .. } = situation;
    if let Some(by) = newer_that_replaces(situation) {
        return GroupVerdict::Superseded { by };
    }
    let mut deadline = None;
    for limits in memberships(situation).filter_map(|(_, strategy)| queue_limits(strategy)) {
        match deadline_of(run, limits) {
            Ok(of_group) => deadline = [deadline, of_group].into_iter().flatten().min(),
            Err(message) => return GroupVerdict::Refused { message },
        }
    }
    let overdue = deadline.is_some_and(|deadline| deadline <= situation.now);
    if let Some(hold) = situation.hold {
        if overdue {
            let message = format!("expired in its queue: its workflow is held by {}", hold.by);
            return GroupVerdict::Expired { message };
        }
        let queues = memberships(situation)
            .filter_map(|(group, strategy)| queue_limits(strategy).map(|limits| (group, limits)));
        for (group, limits) in queues {
            if let Some(message) = full_queue(situation, group, limits, &BTreeSet::new()) {
                return GroupVerdict::Expired { message };
            }
        }
        let why = if hold.reason.is_empty() { String::new() } else { format!(": {}", hold.reason) };
        let message = format!("held by {}{why}", hold.by);
        return GroupVerdict::Queued { message, deadline, supersedes: BTreeSet::new() };
    }

    let replaced = |member: &&GroupMember| !newest.is_newer(member, run);
    let mut supersedes = BTreeSet::new();
    let mut replaces: BTreeMap<RunKey, CancelMode> = BTreeMap::new();
    for (group, strategy) in memberships(situation) {
        let Strategy::Replace { cancel } = strategy else { continue };
        for member in others(group, run).filter(replaced) {
            if member.state.holds_a_place() {
                let mode = replaces.entry(member.run.clone()).or_insert(*cancel);
                *mode = (*mode).max(*cancel);
            } else {
                supersedes.insert(member.run.clone());
            }
        }
    }

    let mut waits_for = None;
    for (group, strategy) in memberships(situation) {
        let Some(limits) = queue_limits(strategy) else { continue };
        let Some(reason) = must_wait(situation, group, limits, &supersedes) else { continue };
        if overdue {
            let waited = limits.max_wait.as_deref().unwrap_or("its limit");
            let message = format!("expired in its queue after {waited}: {reason}");
            return GroupVerdict::Expired { message };
        }
        if let Some(message) = full_queue(situation, group, limits, &supersedes) {
            return GroupVerdict::Expired { message };
        }
        waits_for.get_or_insert(reason);
    }
    match waits_for {
        Some(message) => GroupVerdict::Queued { message, deadline, supersedes },
        None => GroupVerdict::Admitted { replaces, supersedes },
    }
}

/// The newest run that is newer and replaces older ones.
fn newer_that_replaces(situation: &Situation<'_>) -> Option<RunKey> {
    let Situation { run, groups, newest, held, .. } = situation;
    groups
        .iter()
        .flat_map(|group| others(group, run))
        .filter(|member| matches!(member.membership.strategy, Strategy::Replace { .. }))
        .filter(|member| !held.contains(&member.run) && newest.is_newer(member, run))
        .max_by_key(|member| place(member))
        .map(|member| member.run.clone())
        .or_else(|| newest.ended.clone())
}

/// Why a run must wait in the queue of a group, for people.
fn must_wait(
    situation: &Situation<'_>,
    group: &GroupSnapshot,
    limits: &QueueLimits,
    superseded: &BTreeSet<RunKey>,
) -> Option<String> {
    let Situation { run, held, .. } = situation;
    let under_way = others(group, run).filter(|member| member.state.holds_a_place()).count();
    let before = others(group, run)
        .filter(|member| matches!(member.state, RunState::Planned | RunState::Queued))
        .filter(|member| queue_limits(&member.membership.strategy).is_some())
        .filter(|member| !held.contains(&member.run) && !superseded.contains(&member.run))
        .filter(|member| place(member) < (run.order, &run.key))
        .count();
    let full = under_way >= limits.max_running as usize;
    if !full && before == 0 {
        return None;
    }
    let key: &GroupKey = &group.group;
    Some(match before {
        0 => format!("waits in {key} for {under_way} under way"),
        _ => format!("waits in {key} behind {before} others, with {under_way} under way"),
    })
}

/// Why a run that has just been planned may not even wait in a group, for people.
fn full_queue(
    situation: &Situation<'_>,
    group: &GroupSnapshot,
    limits: &QueueLimits,
    superseded: &BTreeSet<RunKey>,
) -> Option<String> {
    let limit = limits.max_queued.filter(|_| situation.run.state == RunState::Planned)?;
    let waiting = others(group, situation.run)
        .filter(|member| member.state == RunState::Queued && !superseded.contains(&member.run))
        .count();
    let group = &group.group;
    (waiting >= limit as usize).then(|| match limit {
        0 => format!("{group} is taken, and none may wait for it"),
        _ => format!("the queue of {group} is full: {waiting} wait in it already"),
    })
}

fn deadline_of(run: &Run, limits: &QueueLimits) -> Result<Option<Timestamp>, String> {
    let Some(text) = &limits.max_wait else { return Ok(None) };
    match parse_duration(text) {
        // A time that lies beyond all times never comes.
        Ok(length) => Ok(run.created_at.checked_add(length).ok()),
        Err(error) => Err(format!("the maxWait of its queue: {error}")),
    }
}

/// Each group of the run with what the run asks for in it, in key order.
fn memberships<'a>(
    situation: &Situation<'a>,
) -> impl Iterator<Item = (&'a GroupSnapshot, &'a Strategy)> {
    let Situation { run, groups, .. } = *situation;
    let mut groups: Vec<&GroupSnapshot> = groups.iter().collect();
    groups.sort_by(|a, b| a.group.cmp(&b.group));
    groups.into_iter().flat_map(|group| {
        let of_group = run.groups.iter().filter(move |one| one.group == group.group);
        of_group.map(move |membership| (group, &membership.strategy))
    })
}

fn others<'a>(
    group: &'a GroupSnapshot,
    run: &'a Run,
) -> impl Iterator<Item = &'a GroupMember> + 'a {
    group.members.iter().filter(|member| member.run != run.key)
}

fn queue_limits(strategy: &Strategy) -> Option<&QueueLimits> {
    match strategy {
        Strategy::Queue(limits) => Some(limits),
        Strategy::Replace { .. } | Strategy::Allow => None,
    }
}
