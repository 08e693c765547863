//! The source of slots.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    calendar::Calendar,
    commit::{self, Found},
    slot::Slot,
};
use crate::{
    ConnectionName, Error, ErrorKind, EventSource, Observation, RepoConnection, Result, SourceName,
    SubjectClaim, Tenant, WorkflowId,
    engine::core::Core,
    event::{Revision, Seen},
    hash_of,
    source::{Connections, ProgressSink, SourceContext},
    store::{CursorMove, Rejected},
    workflow::{Schedule, parse_duration},
};

/// How late a slot may be noticed without counting as missed: a sleeping clock looks up once a
/// minute, and a process takes a moment to start.
const ON_TIME: SignedDuration = SignedDuration::from_secs(60);

/// How long a slot is left to the replica that leads: less than makes it late.
const LEADERS_OWN: SignedDuration = SignedDuration::from_secs(30);

/// How often the schedules are looked through when nothing else wakes the source.
const LONGEST_NAP: SignedDuration = SignedDuration::from_secs(60);

/// How many slots are looked after together.
const TOGETHER: usize = 16;

/// A trigger with a schedule, and the repository that it is for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scheduled {
    pub(crate) tenant: Tenant,
    pub(crate) workflow: WorkflowId,
    pub(crate) trigger: Arc<str>,
    pub(crate) schedule: Schedule,
    pub(crate) connection: ConnectionName,
    /// The repository's full name.
    pub(crate) repo: Arc<str>,
}

impl Scheduled {
    pub(super) fn key(&self) -> Key {
        (self.tenant.clone(), self.workflow.clone(), Arc::clone(&self.trigger))
    }

    pub(super) fn cursor(&self) -> String {
        cursor_of(&self.workflow, &self.trigger)
    }

    /// For people: in the engine's health.
    fn what(&self) -> String {
        format!("{}/{}/{}", self.tenant, self.workflow, self.trigger)
    }
}

type Key = (Tenant, WorkflowId, Arc<str>);

fn cursor_of(workflow: &WorkflowId, trigger: &str) -> String {
    format!("schedule/{workflow}/{trigger}")
}

/// Where the schedules are found.
pub(crate) trait ScheduleBook: Debug + Send + Sync + 'static {
    /// Every trigger with a schedule, of workflows that are used now.
    fn schedules(&self) -> Vec<Scheduled>;
}

/// How far a schedule has come, as the ledger keeps it.
///
/// It moves in the same transaction in which a slot's event is stored, so that a slot is neither
/// lost nor fired twice when the process dies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Position {
    /// Names cron line and time zone: with others, the schedule begins anew.
    calendar: String,
    /// Slots up to here have been seen to.
    pub(crate) after: Timestamp,
    /// A slot that came in time, and for which the repository has not answered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pending: Option<Timestamp>,
}

impl Position {
    fn begin(schedule: &Schedule, now: Timestamp) -> Self {
        Self { calendar: digest(schedule), after: now, pending: None }
    }

    /// Reads what a cursor holds; an empty one is that of a schedule that was taken away.
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    fn text(&self) -> String {
        // Plain text and instants always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn digest(schedule: &Schedule) -> String {
    hash_of(&[&schedule.cron, schedule.time_zone.as_deref().unwrap_or("UTC")])
}

/// The built-in event source of `on: schedule`.
///
/// A slot is an occurrence whose id is made of workflow, trigger and instant, so that two replicas,
/// a restart or a clock that jumps back cannot make two events of it. Of slots that were missed,
/// while nothing ran or while the clock jumped forward, only the newest counts, and only when the
/// schedule has a `startingDeadline` that has not passed; that it was skipped is recorded as a
/// decision. A slot that came in time and for which the repository does not answer is tried until
/// it does, or the next one comes.
///
/// Of several replicas one has its slot stored. So that the others do not ask the host for its commit,
/// too, they leave it to the one that leads for a while; a slot that nobody has seen to by then is
/// anybody's, so that none hangs on who leads.
#[derive(Debug)]
pub(crate) struct ScheduleSource {
    core: Arc<Core>,
    book: Arc<dyn ScheduleBook>,
    leads: watch::Receiver<bool>,
    memory: Mutex<Memory>,
}

/// What the source remembers from one round to the next.
#[derive(Debug, Default)]
struct Memory {
    /// What was in the book.
    known: BTreeSet<Key>,
    /// Schedules of which nothing is due for a while, or that are tried again later.
    asleep: BTreeMap<Key, Asleep>,
    /// The end of the last round: slots that came during it were not missed.
    round_ended: Option<Timestamp>,
}

/// A schedule that is left alone for a while.
#[derive(Debug)]
struct Asleep {
    schedule: Schedule,
    since: Timestamp,
    /// Until when; for good when `None`.
    until: Option<Timestamp>,
    /// How often it has failed, when it waits to be tried again.
    failures: u32,
}

impl Asleep {
    /// Whether it sleeps on: neither is its time up, nor was the schedule edited or the clock put
    /// back.
    fn on(&self, schedule: &Schedule, now: Timestamp) -> bool {
        self.since <= now
            && self.schedule == *schedule
            && self.until.is_none_or(|until| until > now)
    }
}

impl ScheduleSource {
    pub(crate) const NAME: &'static str = "schedule";

    pub(crate) fn new(
        core: Arc<Core>,
        book: Arc<dyn ScheduleBook>,
        leads: watch::Receiver<bool>,
    ) -> Self {
        Self { core, book, leads, memory: Mutex::default() }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fires what is due. Returns how many slots made an event or were seen to, and when the next
    /// look is due.
    pub(crate) async fn round(&self, progress: &dyn ProgressSink) -> (usize, Option<Timestamp>) {
        let now = self.core.clock.now();
        let schedules = self.book.schedules();
        self.forget_others(&schedules).await;
        let (awake, round_ended) = {
            let memory = self.memory();
            let awake = schedules.into_iter().filter_map(|scheduled| {
                let asleep = memory.asleep.get(&scheduled.key());
                match asleep {
                    Some(asleep) if asleep.on(&scheduled.schedule, now) => None,
                    _ => Some((scheduled, asleep.map_or(0, |asleep| asleep.failures))),
                }
            });
            (awake.collect::<Vec<_>>(), memory.round_ended)
        };
        let looks = awake.into_iter().map(|(scheduled, failures)| async move {
            let fired = self.look_after(&scheduled, now, round_ended, failures, progress).await;
            (scheduled, fired)
        });
        let looked: Vec<_> = stream::iter(looks).buffer_unordered(TOGETHER).collect().await;
        let mut memory = self.memory();
        let mut seen_to = 0;
        for (scheduled, Fired { next, published, failures }) in looked {
            seen_to += usize::from(published);
            let key = scheduled.key();
            let schedule = scheduled.schedule;
            memory.asleep.insert(key, Asleep { schedule, since: now, until: next, failures });
        }
        let Memory { known, asleep, .. } = &mut *memory;
        asleep.retain(|key, _| known.contains(key));
        let next = asleep.values().filter_map(|asleep| asleep.until).min();
        memory.round_ended = Some(self.core.clock.now());
        (seen_to, next)
    }

    /// Empties the cursors of schedules that were taken away, so that one that comes back begins
    /// anew.
    async fn forget_others(&self, schedules: &[Scheduled]) {
        let present: BTreeSet<Key> = schedules.iter().map(Scheduled::key).collect();
        let gone: Vec<Key> = {
            let mut memory = self.memory();
            let gone = memory.known.difference(&present).cloned().collect();
            memory.known = present;
            gone
        };
        for (tenant, workflow, trigger) in gone {
            let name = cursor_of(&workflow, &trigger);
            let emptied = async {
                let from = self.core.store.cursor(&tenant, &name).await?;
                let to = String::new();
                let moved = CursorMove { tenant: tenant.clone(), name, from, to };
                self.core.store.admit(Vec::new(), Some(moved)).await
            };
            if let Err(error) = emptied.await {
                tracing::warn!(%error, %workflow, %trigger, "a schedule's cursor stays behind");
                self.memory().known.insert((tenant, workflow, trigger));
            }
        }
    }

    async fn look_after(
        &self,
        scheduled: &Scheduled,
        now: Timestamp,
        round_ended: Option<Timestamp>,
        failures: u32,
        progress: &dyn ProgressSink,
    ) -> Fired {
        let name = SourceName::from(Self::NAME);
        match self.fire(scheduled, now, round_ended).await {
            Ok(fired) => {
                if fired.published {
                    progress.succeeded(&name, &scheduled.what(), now);
                }
                fired
            }
            // Another replica was quicker.
            Err(error) if error.kind() == ErrorKind::Conflict => Fired::nothing(Some(now)),
            Err(error) => {
                let next = match error.kind() {
                    ErrorKind::RateLimited { until: Some(until) } => until,
                    _ => now + retry_after(failures),
                };
                progress.failed(&name, &scheduled.what(), &error, next);
                Fired { failures: failures.saturating_add(1), ..Fired::nothing(Some(next)) }
            }
        }
    }

    /// Fires a schedule's slot when one is due.
    async fn fire(
        &self,
        scheduled: &Scheduled,
        now: Timestamp,
        round_ended: Option<Timestamp>,
    ) -> Result<Fired> {
        let calendar = Calendar::of(&scheduled.schedule)?;
        let cursor = scheduled.cursor();
        let recorded = self.core.store.cursor(&scheduled.tenant, &cursor).await?;
        let advance = |to: &Position| CursorMove {
            tenant: scheduled.tenant.clone(),
            name: cursor.clone(),
            from: recorded.clone(),
            to: to.text(),
        };
        let position = recorded
            .as_deref()
            .and_then(Position::read)
            .filter(|position| position.calendar == digest(&scheduled.schedule));
        let Some(position) = position else {
            let begin = Position::begin(&scheduled.schedule, now);
            self.core.store.admit(Vec::new(), Some(advance(&begin))).await?;
            return Ok(Fired::nothing(calendar.next_after(now)));
        };

        if position.after > now + ON_TIME {
            // The clock was put back. It makes no slot fire twice, for its id is the same again.
            let back = Position { after: now, ..position };
            self.core.store.admit(Vec::new(), Some(advance(&back))).await?;
            return Ok(Fired::nothing(calendar.next_after(now)));
        }
        let after = position.after;
        let newest = calendar.last_within(after, now);
        let (slot, skipped_since, missed) = match (newest, position.pending) {
            (None, None) => {
                return Ok(Fired::nothing(calendar.next_after(after)));
            }
            (None, Some(pending)) => (pending, None, None),
            (Some(slot), pending) => {
                let first = pending.or_else(|| calendar.next_after(after));
                let skipped_since = first.filter(|first| *first < slot);
                let missed = missed(&scheduled.schedule, slot, now, round_ended)?;
                (slot, skipped_since, missed)
            }
        };
        let free = slot + LEADERS_OWN;
        if now < free && !*self.leads.borrow() {
            return Ok(Fired::nothing(Some(free)));
        }
        let slot = Slot {
            workflow: scheduled.workflow.clone(),
            trigger: Arc::clone(&scheduled.trigger),
            slot,
            run_now: false,
            skipped_since,
            approximate: false,
            rejected: missed,
        };
        match observe(&self.core, scheduled, slot.clone(), None).await {
            Ok(observation) => {
                let done = Position { after: slot.slot, pending: None, ..position };
                self.core.store.admit(vec![observation], Some(advance(&done))).await?;
                let next = calendar.next_after(slot.slot);
                Ok(Fired { published: true, ..Fired::nothing(next) })
            }
            Err(error) => {
                if position.pending != Some(slot.slot) {
                    // From now on it is not missed but waits, also after a restart.
                    let waiting =
                        Position { after: slot.slot, pending: Some(slot.slot), ..position };
                    self.core.store.admit(Vec::new(), Some(advance(&waiting))).await?;
                }
                Err(error)
            }
        }
    }
}

/// What came of looking after a schedule.
#[derive(Debug)]
struct Fired {
    /// When it is to be looked after again; `None` when it never fires again.
    next: Option<Timestamp>,
    /// Whether a slot was stored.
    published: bool,
    /// How often in a row it has failed.
    failures: u32,
}

impl Fired {
    fn nothing(next: Option<Timestamp>) -> Self {
        Self { next, published: false, failures: 0 }
    }
}

/// Why a slot is too late to run.
fn missed(
    schedule: &Schedule,
    slot: Timestamp,
    now: Timestamp,
    round_ended: Option<Timestamp>,
) -> Result<Option<Rejected>> {
    let late = now.duration_since(slot);
    let deadline = match &schedule.starting_deadline {
        Some(text) => parse_duration(text)?.max(ON_TIME),
        None => ON_TIME,
    };
    // One that came while others were looked after was not missed.
    if late <= deadline || round_ended.is_some_and(|ended| slot <= ended) {
        return Ok(None);
    }
    let wanted = match &schedule.starting_deadline {
        Some(text) => format!("a slot no later than {text}"),
        None => "a slot in time; startingDeadline says how late one may be".to_owned(),
    };
    let saw = json!({ "slot": slot, "seen": now, "late": format!("{late:#}") });
    Ok(Some(Rejected { filter: "startingDeadline".into(), wanted, saw }))
}

/// The longest time between two tries.
const LONGEST_RETRY: SignedDuration = SignedDuration::from_mins(5);

fn retry_after(tries: u32) -> SignedDuration {
    let seconds = 5_i64.saturating_mul(1 << tries.min(10));
    SignedDuration::from_secs(seconds).min(LONGEST_RETRY)
}

/// Finds what a slot is for, and makes its observation. With a key of a caller, who is told when
/// there is no commit; else that is recorded with the slot.
pub(super) async fn observe(
    core: &Core,
    scheduled: &Scheduled,
    mut slot: Slot,
    key: Option<&str>,
) -> Result<Observation> {
    let Scheduled { tenant, schedule, workflow, trigger, .. } = scheduled;
    let connecting = core.connections.repository(tenant, &scheduled.connection, &scheduled.repo);
    let repository: Arc<dyn RepoConnection> = core.call("connect", connecting).await?;
    let mut head: Option<Revision> = None;
    if slot.rejected.is_none() {
        match commit::find(core, tenant, repository.as_ref(), schedule, slot.slot).await? {
            Found::Commit { head: found, approximate } => {
                slot.approximate = approximate;
                if schedule.only_if_changed && !slot.run_now {
                    slot.rejected =
                        commit::unchanged(core, tenant, workflow, trigger, &found).await?;
                }
                head = Some(found);
            }
            Found::Nothing(rejected) if slot.run_now => {
                return Err(Error::not_found("run a schedule now", "it has no commit to run for")
                    .with("wanted", rejected.wanted)
                    .with("saw", rejected.saw));
            }
            Found::Nothing(rejected) => slot.rejected = Some(rejected),
        }
    }
    let occurrence = slot.occurrence(key, head);
    let delivery = format!("{}/{}", ScheduleSource::NAME, occurrence.id);
    let observation = Observation::new(
        tenant.clone(),
        repository.repo().clone(),
        ScheduleSource::NAME.into(),
        delivery.into(),
        Seen::Told,
        SubjectClaim::Occurrence(Box::new(occurrence)),
    );
    Ok(observation.at(slot.slot))
}

#[async_trait]
impl EventSource for ScheduleSource {
    fn name(&self) -> SourceName {
        Self::NAME.into()
    }

    async fn run(&self, mut context: SourceContext, shutdown: CancellationToken) -> Result<()> {
        let progress = Arc::clone(&self.core.health);
        let mut told = true;
        loop {
            let (_, next) = self.round(progress.as_ref()).await;
            let nap = self.core.clock.now() + LONGEST_NAP;
            let until = next.map_or(nap, |next| next.min(nap));
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = self.core.clock.sleep_until(until) => {}
                changed = context.interests.changed(), if told => told = changed.is_ok(),
            }
        }
    }
}
