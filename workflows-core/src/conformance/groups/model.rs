//! What a commit may change: the rules of concurrency groups, one run after the other.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::replica::Made;
use crate::{
    CommitId, GroupKey, Run, RunKey, RunState, WorkflowId,
    run::{CancelReason, GroupMembership},
    workflow::{QueueLimits, Strategy, parse_duration},
};

/// What is known of a history, and what was seen of its runs.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// Every run as it was seen last.
    runs: BTreeMap<RunKey, Run>,
    /// The commits of the branch, oldest first: the order of the fact.
    pub(super) chain: Vec<CommitId>,
    /// What somebody was asked to end.
    pub(super) cancels: BTreeSet<RunKey>,
    /// Queues that somebody asked to be cleared.
    pub(super) cleared: BTreeSet<GroupKey>,
    /// When a workflow was held or released: at which commit, and whether it is held since.
    holds: Vec<(usize, WorkflowId, bool)>,
    commits: usize,
}

/// A rule that was broken, for people.
pub(super) type Broken = String;

/// Fails with a message unless it holds.
macro_rules! allow {
    ($holds:expr, $($message:tt)*) => {
        if !$holds {
            return Err(format!($($message)*));
        }
    };
}

impl Model {
    pub(super) fn commits(&self) -> usize {
        self.commits
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.values()
    }

    pub(super) fn run(&self, key: &RunKey) -> Option<&Run> {
        self.runs.get(key)
    }

    /// Takes in whether a workflow is held, as it was read after a commit.
    pub(super) fn see_hold(&mut self, workflow: &WorkflowId, held: bool) {
        if self.is_held(workflow) != held {
            self.holds.push((self.commits, workflow.clone(), held));
        }
    }

    pub(super) fn is_held(&self, workflow: &WorkflowId) -> bool {
        self.held_at(workflow, self.commits)
    }

    fn held_at(&self, workflow: &WorkflowId, commit: usize) -> bool {
        let changes = self.holds.iter().rev();
        let last = changes.clone().find(|(at, of, _)| of == workflow && *at <= commit);
        last.is_some_and(|(_, _, held)| *held)
    }

    /// Whether it was so at some time between a commit and the present one.
    fn was_held(&self, workflow: &WorkflowId, since: usize, held: bool) -> bool {
        self.held_at(workflow, since) == held
            || self
                .holds
                .iter()
                .any(|(at, of, became)| *at > since && of == workflow && *became == held)
    }

    /// Takes in how the runs stand after a commit, and says whether it was allowed.
    pub(super) fn see(&mut self, now: Vec<Run>, made: Made) -> Result<Vec<String>, Broken> {
        self.commits += 1;
        let mut seen = Vec::new();
        let mut after = self.runs.clone();
        let mut changed = Vec::new();
        for run in now {
            let before = self.runs.get(&run.key);
            if before == Some(&run) {
                continue;
            }
            seen.push(format!(
                "run {} of {} {} -> {} {}{}",
                run.order,
                run.workflow.name,
                before.map_or("", |run| run.state.as_str()),
                run.state,
                run.message,
                if run.cancel.is_some() { " (told to end)" } else { "" }
            ));
            changed.push(run.key.clone());
            after.insert(run.key.clone(), run);
        }
        let change = Change { model: self, after: &after, made };
        let outcome = changed.iter().try_for_each(|key| change.check(key));
        let outcome = outcome.and_then(|()| change.check_groups());
        self.runs = after;
        match outcome {
            Ok(()) => Ok(seen),
            Err(broken) => Err(format!("{}\n{broken}", seen.join("\n"))),
        }
    }

    /// Whether a run is newer than another, by the order of the fact where both are about the
    /// branch, else by the order of intake.
    pub(super) fn is_newer(&self, one: &Run, other: &Run) -> bool {
        let place = |run: &Run| {
            let commit = run.commit.as_ref().filter(|_| run.subject.as_str().starts_with("refs/"));
            commit.and_then(|commit| self.chain.iter().position(|one| one == commit))
        };
        match (place(one), place(other)) {
            (Some(one), Some(other)) if one != other => one > other,
            _ => (one.order, &one.key) > (other.order, &other.key),
        }
    }
}

/// One commit: the runs before it, and after it.
struct Change<'a> {
    model: &'a Model,
    after: &'a BTreeMap<RunKey, Run>,
    made: Made,
}

impl Change<'_> {
    fn check(&self, key: &RunKey) -> Result<(), Broken> {
        let after = &self.after[key];
        let Some(before) = self.model.runs.get(key) else {
            let fresh =
                if after.groups.is_empty() { RunState::Admitted } else { RunState::Planned };
            allow!(after.state == fresh, "run {} begins as {}", after.order, after.state);
            return Ok(());
        };
        allow!(after.version > before.version, "run {} kept its version", after.order);
        allow!(
            !before.state.is_terminal() || before.state == after.state,
            "run {} had ended as {}",
            after.order,
            before.state
        );
        if before.cancel != after.cancel {
            self.may_be_told_to_end(before, after)?;
        }
        if before.state == after.state {
            return Ok(());
        }
        match after.state {
            RunState::Admitted => self.may_be_admitted(before, after),
            RunState::Queued => self.may_wait(before, after),
            RunState::Expired => self.may_expire(before, after),
            RunState::Superseded => self.may_be_superseded(after),
            RunState::Cancelled => {
                allow!(
                    self.model.cancels.contains(&after.key),
                    "run {} was cancelled by nobody",
                    after.order
                );
                Ok(())
            }
            RunState::Created | RunState::Running | RunState::Succeeded => {
                allow!(
                    before.state.holds_a_place(),
                    "run {} goes on as {} from {}",
                    after.order,
                    after.state,
                    before.state
                );
                Ok(())
            }
            other => Err(format!("run {} became {other}: {}", after.order, after.message)),
        }
    }

    fn may_be_told_to_end(&self, before: &Run, after: &Run) -> Result<(), Broken> {
        let Some(cancel) = &after.cancel else {
            return Err(format!("run {} is not to end any more", after.order));
        };
        if let Some(earlier) = before.cancel.as_ref().filter(|_| !is_waiting(before)) {
            allow!(
                cancel.mode >= earlier.mode && cancel.reason == earlier.reason,
                "run {} is told to end more gently, or by another",
                after.order
            );
            return Ok(());
        }
        match &cancel.reason {
            CancelReason::Requested { .. } => {
                allow!(
                    self.model.cancels.contains(&after.key),
                    "run {} is told to end by nobody",
                    after.order
                );
            }
            CancelReason::SupersededBy(by) => {
                let by = self.run(by)?;
                self.takes_the_place_of(by, after)?;
                if before.state.holds_a_place() {
                    allow!(
                        self.becomes(by, RunState::Admitted),
                        "run {} is told to end by run {}, which waits itself",
                        after.order,
                        by.order
                    );
                }
            }
        }
        Ok(())
    }

    /// All of: newer by the fact, replaces in a group of the older, and did not fall out itself.
    fn takes_the_place_of(&self, newer: &Run, older: &Run) -> Result<(), Broken> {
        allow!(
            self.model.is_newer(newer, older),
            "run {} at {:?} gives way to the older run {} at {:?}",
            older.order,
            older.commit,
            newer.order,
            newer.commit
        );
        allow!(
            replaced_in(newer, older).next().is_some(),
            "run {} gives way to run {}, which replaces nobody there",
            older.order,
            newer.order
        );
        allow!(
            !matches!(newer.state, RunState::Expired | RunState::Refused),
            "run {} gives way to run {}, whose turn never came",
            older.order,
            newer.order
        );
        Ok(())
    }

    fn may_be_admitted(&self, before: &Run, run: &Run) -> Result<(), Broken> {
        allow!(is_waiting(before), "run {} was admitted from {}", run.order, before.state);
        allow!(
            self.model.was_held(&run.workflow, self.made.since, false),
            "run {} goes on while its workflow is held",
            run.order
        );
        for membership in &run.groups {
            if let Strategy::Queue(limits) = &membership.strategy {
                let (under_way, ahead) = self.queue(run, membership);
                allow!(
                    under_way < limits.max_running as usize,
                    "run {} is admitted to {}, where {under_way} are under way",
                    run.order,
                    membership.group
                );
                allow!(
                    ahead.is_empty(),
                    "run {} goes on in {} before {ahead:?}",
                    run.order,
                    membership.group
                );
            }
        }
        self.nobody_newer_is_there(run)?;
        for (older, _) in self.others(run) {
            if replaced_in(run, older).next().is_none() || self.model.is_newer(older, run) {
                continue;
            }
            let now = &self.after[&older.key];
            let gives_way = now.state.is_terminal() || now.cancel.is_some();
            allow!(
                gives_way,
                "run {} is admitted, and run {} goes on beside it",
                run.order,
                older.order
            );
        }
        Ok(())
    }

    fn may_wait(&self, before: &Run, run: &Run) -> Result<(), Broken> {
        allow!(is_waiting(before), "run {} waits after {}", run.order, before.state);
        let held = self.model.was_held(&run.workflow, self.made.since, true);
        let mut must_wait = held;
        for membership in &run.groups {
            if let Strategy::Queue(limits) = &membership.strategy {
                let (under_way, _) = self.queue(run, membership);
                // Somebody before it may just have been released.
                let ahead = self.ahead(run, membership, |_| true).next().is_some();
                must_wait |= under_way >= limits.max_running as usize || ahead;
                let waiting = self.waiting_in(run, &membership.group);
                let most = limits.max_queued.map_or(usize::MAX, |most| most as usize);
                allow!(
                    waiting < most,
                    "run {} waits as one of {} in {}",
                    run.order,
                    waiting + 1,
                    membership.group
                );
            }
        }
        allow!(must_wait, "run {} waits for nothing: {}", run.order, run.message);
        if held { Ok(()) } else { self.nobody_newer_is_there(run) }
    }

    fn may_expire(&self, before: &Run, run: &Run) -> Result<(), Broken> {
        allow!(is_waiting(before), "run {} expired after {}", run.order, before.state);
        let queues = || {
            run.groups.iter().filter_map(|one| match &one.strategy {
                Strategy::Queue(limits) => Some((&one.group, limits)),
                _ => None,
            })
        };
        let cleared = queues().any(|(group, _)| self.model.cleared.contains(group));
        let full = queues().any(|(group, limits)| {
            limits.max_queued.is_some_and(|most| self.waiting_in(run, group) >= most as usize)
        });
        let overdue = queues()
            .filter_map(|(_, limits)| longest_wait(limits))
            .any(|most| self.made.latest.duration_since(run.created_at) >= most);
        allow!(
            cleared || full && before.state == RunState::Planned || overdue,
            "run {} expired for no reason: {}",
            run.order,
            run.message
        );
        Ok(())
    }

    fn may_be_superseded(&self, run: &Run) -> Result<(), Broken> {
        let Some(CancelReason::SupersededBy(by)) = run.cancel.as_ref().map(|cancel| &cancel.reason)
        else {
            return Err(format!("run {} was superseded by nobody", run.order));
        };
        self.takes_the_place_of(self.run(by)?, run)
    }

    /// Whoever may go on is the newest of its groups that replace.
    fn nobody_newer_is_there(&self, run: &Run) -> Result<(), Broken> {
        for (other, _) in self.others(run) {
            let passed_over =
                is_waiting(other) && self.model.was_held(&other.workflow, self.made.since, true);
            let newer = replaced_in(other, run).next().is_some() && self.model.is_newer(other, run);
            allow!(
                !newer || passed_over,
                "run {} goes on although run {} is newer",
                run.order,
                other.order
            );
        }
        Ok(())
    }

    /// How many others were under way in a queue, and who waited there before the run and was not
    /// passed over.
    fn queue(&self, run: &Run, membership: &GroupMembership) -> (usize, Vec<i64>) {
        let under_way = self
            .others(run)
            .filter(|(other, group)| *group == &membership.group && other.state.holds_a_place())
            .count();
        let held = |other: &Run| self.model.was_held(&other.workflow, self.made.since, true);
        let ahead = self.ahead(run, membership, |other| !held(other)).map(|one| one.order);
        (under_way, ahead.collect())
    }

    fn ahead<'a>(
        &'a self,
        run: &'a Run,
        membership: &'a GroupMembership,
        counts: impl Fn(&Run) -> bool + 'a,
    ) -> impl Iterator<Item = &'a Run> {
        self.others(run)
            .filter(|(other, group)| *group == &membership.group && is_waiting(other))
            .map(|(other, _)| other)
            .filter(|other| (other.order, &other.key) < (run.order, &run.key))
            .filter(|other| queues_in(other, &membership.group))
            // Those who lose their place in this commit are not before it.
            .filter(|other| !self.after[&other.key].state.is_terminal())
            .filter(move |other| counts(other))
    }

    fn waiting_in(&self, run: &Run, group: &GroupKey) -> usize {
        self.others(run)
            .filter(|(other, of)| *of == group && other.state == RunState::Queued)
            .filter(|(other, _)| !self.after[&other.key].state.is_terminal())
            .count()
    }

    /// The members of a run's groups as they were before the commit, with the group.
    fn others<'a>(&'a self, run: &'a Run) -> impl Iterator<Item = (&'a Run, &'a GroupKey)> {
        let alive = self.model.runs.values().filter(|other| !other.state.is_terminal());
        alive.filter(|other| other.key != run.key).flat_map(|other| {
            let shared = other.groups.iter().map(|one| &one.group);
            let shared = shared.filter(|group| run.groups.iter().any(|one| one.group == **group));
            shared.map(move |group| (other, group))
        })
    }

    fn run(&self, key: &RunKey) -> Result<&Run, Broken> {
        self.after.get(key).ok_or_else(|| format!("there is no run {key}"))
    }

    /// Whether a run comes to a state in this commit.
    fn becomes(&self, run: &Run, state: RunState) -> bool {
        let before = self.model.runs.get(&run.key).map(|run| run.state);
        run.state == state && before != Some(state)
    }

    /// What holds of all groups at every instant.
    fn check_groups(&self) -> Result<(), Broken> {
        let mut under_way: BTreeMap<&GroupKey, (usize, usize)> = BTreeMap::new();
        let mut going_on: BTreeMap<&GroupKey, Vec<i64>> = BTreeMap::new();
        for run in self.after.values().filter(|run| run.state.holds_a_place()) {
            for membership in &run.groups {
                match &membership.strategy {
                    Strategy::Queue(limits) => {
                        let limit = limits.max_running as usize;
                        under_way.entry(&membership.group).or_insert((0, limit)).0 += 1;
                    }
                    Strategy::Replace { .. } if run.cancel.is_none() => {
                        going_on.entry(&membership.group).or_default().push(run.order);
                    }
                    _ => {}
                }
            }
        }
        for (group, (count, limit)) in under_way {
            allow!(count <= limit, "{count} runs are under way in {group}, which lets {limit}");
        }
        for (group, runs) in going_on {
            allow!(runs.len() <= 1, "runs {runs:?} of {group} go on together");
        }
        Ok(())
    }
}

/// The groups in which a newer run takes the place of an older one.
fn replaced_in<'a>(newer: &'a Run, older: &'a Run) -> impl Iterator<Item = &'a GroupKey> {
    newer
        .groups
        .iter()
        .filter(|one| matches!(one.strategy, Strategy::Replace { .. }))
        .map(|one| &one.group)
        .filter(|group| older.groups.iter().any(|one| one.group == **group))
}

fn queues_in(run: &Run, group: &GroupKey) -> bool {
    let mut queues = run.groups.iter().filter(|one| matches!(one.strategy, Strategy::Queue(_)));
    queues.any(|one| one.group == *group)
}

fn is_waiting(run: &Run) -> bool {
    matches!(run.state, RunState::Planned | RunState::Queued)
}

fn longest_wait(limits: &QueueLimits) -> Option<SignedDuration> {
    limits.max_wait.as_deref().and_then(|text| parse_duration(text).ok())
}
