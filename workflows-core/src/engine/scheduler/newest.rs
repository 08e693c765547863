//! Which run of a group is the newest, by the order of the fact.
//!
//! The order of intake answers it nearly always: what is older than what is recorded is no event.
//! It is in doubt only between two runs of one subject when the chain of events from the one to the
//! other has a gap: one whose place could not be told at intake, and what is chained to that one,
//! may be older than all that came before. Then ancestry answers, else the present head in the
//! repository, else the order of intake after all. Commit dates are never asked.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    CommitId, Error, ErrorKind, RepoConnection, Result, Run, RunKey, RunState, Store,
    source::Connections,
    store::{EventQuery, GroupMember, GroupSnapshot, PageRequest, RunQuery},
    workflow::Strategy,
};

/// Which runs are newer than the one that is decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Newest {
    /// Whether these are newer; all others are when they came later.
    pub(crate) told: BTreeMap<RunKey, bool>,
    /// A newer run of a group that replaces older ones, and that has ended already.
    pub(crate) ended: Option<RunKey>,
}

impl Newest {
    /// Whether a member of a group is newer than the run. Of two runs of one event and group, the
    /// one with the greater key counts as the newer.
    pub(crate) fn is_newer(&self, member: &GroupMember, run: &Run) -> bool {
        self.told
            .get(&member.run)
            .copied()
            .unwrap_or_else(|| (member.order, &member.run) > (run.order, &run.key))
    }
}

/// Asks for the order of runs.
#[derive(Debug)]
pub(super) struct OrderOfFacts<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) connections: &'a dyn Connections,
    /// How long one call to the repository may take.
    pub(super) call_timeout: Duration,
    /// Whether an answer is worth waiting for: else what cannot be had now counts as unknown.
    pub(super) patient: bool,
}

/// A run beside the one that is decided.
struct Rival {
    run: Run,
    ended: bool,
}

impl OrderOfFacts<'_> {
    /// Which runs are newer than this one, among the members of its groups and those of its subject
    /// that have ended.
    pub(super) async fn newest(&self, run: &Run, groups: &[GroupSnapshot]) -> Result<Newest> {
        let mut newest = Newest::default();
        let mut present = None;
        let mut members: Vec<&GroupMember> = Vec::new();
        for member in groups.iter().flat_map(|group| &group.members).filter(|member| {
            member.run != run.key && member.repo == run.repo.id && member.subject == run.subject
        }) {
            if !members.iter().any(|known| known.run == member.run) {
                members.push(member);
            }
        }
        let ended = self.ended(run).await?;
        let orders = members.iter().map(|member| member.order);
        let gaps = self.gaps(run, orders.chain(ended.iter().map(|run| run.order)).min()).await?;
        let mut rivals: Vec<Rival> = Vec::new();
        for member in members {
            if (member.order > run.order || gaps.between(member.order, run.order))
                && let Some(found) = self.store.run(&run.tenant, &member.run).await?
            {
                rivals.push(Rival { run: found, ended: false });
            }
        }
        rivals.extend(
            ended
                .into_iter()
                .filter(|other| other.order > run.order || gaps.between(other.order, run.order))
                .map(|run| Rival { run, ended: true }),
        );
        for rival in rivals {
            let came_later = (rival.run.order, &rival.run.key) > (run.order, &run.key);
            let gap = rival.run.order > run.order && rival.run.unchained
                || gaps.between(rival.run.order, run.order);
            let newer = if gap && may_differ(run, &rival.run) {
                let told = self.is_newer(&rival.run, run, &mut present).await?;
                told.unwrap_or(came_later)
            } else {
                came_later
            };
            if !rival.ended {
                newest.told.insert(rival.run.key, newer);
            } else if newer && newest.ended.is_none() {
                newest.ended = Some(rival.run.key);
            }
        }
        Ok(newest)
    }

    /// The runs of the same subject that were in a group of this one, when it has just been planned,
    /// and have ended. A hundred of one subject and time is far more than there are.
    async fn ended(&self, run: &Run) -> Result<Vec<Run>> {
        if run.state != RunState::Planned || run.groups.is_empty() {
            return Ok(Vec::new());
        }
        let query = RunQuery::of(run.tenant.clone())
            .repo(Some(run.repo.id.clone()))
            .subject(Some(run.subject.clone()))
            .page(PageRequest { limit: 100, after: None });
        let mut recent = self.store.runs(query).await?.items;
        recent.retain(|other| {
            other.key != run.key
                && has_run_its_course(other.state)
                && replaces_in_a_group_of(other, run)
        });
        Ok(recent)
    }

    /// The gaps in the chain of a run's subject, as far back as an order.
    async fn gaps(&self, run: &Run, back_to: Option<i64>) -> Result<Gaps> {
        let own = run.unchained.then_some(run.order);
        // Of other subjects the host says itself which state is the newer.
        let Some(back_to) = back_to.filter(|_| run.subject.as_str().starts_with("refs/")) else {
            return Ok(Gaps { at: own.into_iter().collect(), before: i64::MIN });
        };
        let query = EventQuery::of(run.tenant.clone())
            .repo(Some(run.repo.id.clone()))
            .subject(Some(run.subject.clone()))
            .page(PageRequest { limit: 100, after: None });
        let page = self.store.events(query).await?;
        let oldest = page.items.last().map_or(i64::MAX, |event| event.sequence);
        let events = page.items.into_iter().filter(|event| event.unchained);
        Ok(Gaps {
            at: events.map(|event| event.sequence).chain(own).collect(),
            // What was not read may have gaps.
            before: if oldest > back_to && page.next.is_some() { oldest } else { i64::MIN },
        })
    }

    /// Whether `rival` is the newer of both; `None` when nobody knows.
    async fn is_newer(
        &self,
        rival: &Run,
        run: &Run,
        present: &mut Option<Option<CommitId>>,
    ) -> Result<Option<bool>> {
        let (Some(theirs), Some(ours)) = (&rival.commit, &run.commit) else { return Ok(None) };
        let Some(repository) = self.answered(self.repository(run)).await? else { return Ok(None) };
        if let Some(history) = repository.history() {
            if self.answered(history.is_ancestor(theirs, ours)).await? == Some(true) {
                return Ok(Some(false));
            }
            if self.answered(history.is_ancestor(ours, theirs)).await? == Some(true) {
                return Ok(Some(true));
            }
        }
        if present.is_none() {
            *present = Some(self.present_head(run, repository.as_ref()).await?);
        }
        let head = present.as_ref().and_then(Option::as_ref);
        Ok(match head {
            Some(head) if head == ours => Some(false),
            Some(head) if head == theirs => Some(true),
            _ => None,
        })
    }

    async fn repository(&self, run: &Run) -> Result<std::sync::Arc<dyn RepoConnection>> {
        self.connections.repository(&run.tenant, &run.repo.connection, &run.repo.name).await
    }

    /// Where the subject of a run stands now.
    async fn present_head(
        &self,
        run: &Run,
        repository: &dyn RepoConnection,
    ) -> Result<Option<CommitId>> {
        match (run.pull_request, &run.reference) {
            (Some(number), _) => match repository.pull_requests() {
                Some(pull_requests) => {
                    let present = self.answered(pull_requests.get(number)).await?;
                    Ok(present.map(|pull_request| pull_request.head.sha))
                }
                None => Ok(None),
            },
            (None, Some(reference)) => self.answered(repository.resolve(reference)).await,
            (None, None) => Ok(None),
        }
    }

    /// The answer to a question; `None` when there is none and waiting would not bring one.
    async fn answered<T>(&self, question: impl Future<Output = Result<T>>) -> Result<Option<T>> {
        let answer = match tokio::time::timeout(self.call_timeout, question).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::transient(
                "ask for the order of two commits",
                "the repository did not answer in time",
            )),
        };
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if self.patient && is_worth_waiting_for(error.kind()) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "the order of two runs is decided without the repository");
                Ok(None)
            }
        }
    }
}

fn is_worth_waiting_for(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Transient | ErrorKind::RateLimited { .. })
}

/// Where the chain of a subject has gaps.
#[derive(Debug)]
struct Gaps {
    /// The sequences of the events that are not chained to what was recorded then.
    at: Vec<i64>,
    /// Before this one nobody looked.
    before: i64,
}

impl Gaps {
    /// Whether the chain from one place in the order of intake to another may have one.
    fn between(&self, one: i64, other: i64) -> bool {
        let (earlier, later) = (one.min(other), one.max(other));
        earlier < self.before || self.at.iter().any(|gap| earlier < *gap && *gap <= later)
    }
}

/// Whether two runs of a subject can be told apart by their commits. A run that somebody asked for
/// again is as new as the request.
fn may_differ(one: &Run, other: &Run) -> bool {
    one.commit != other.commit && one.attempt.is_first() && other.attempt.is_first()
}

/// Whether a run has ended and did not end before its turn came.
fn has_run_its_course(state: RunState) -> bool {
    state.is_terminal() && !matches!(state, RunState::Expired | RunState::Refused)
}

/// Whether a run, when it was planned, took the place of older ones in a group of another.
fn replaces_in_a_group_of(run: &Run, other: &Run) -> bool {
    run.groups.iter().any(|membership| {
        matches!(membership.strategy, Strategy::Replace { .. })
            && other.groups.iter().any(|theirs| theirs.group == membership.group)
    })
}
