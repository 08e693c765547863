//! Finding pushes, tags and deletions by looking: [`RefPoller`].
//!
//! It works with any driver, needs no inbound port, and also finds what webhooks missed.

mod interval;
mod reading;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use workflows_core::{
    ConnectionName, Error, ErrorKind, EventSource, Result, SourceName, Tenant,
    matching::Pattern,
    source::{Interests, RepoInterest, SourceContext},
};

use self::{
    interval::Pace,
    reading::{Reading, read},
};

/// What the first look at a repository makes of the refs that it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FirstSight {
    /// They are recorded, and nothing runs: only what changes from now on does.
    #[default]
    Baseline,
    /// Each of them is news, as if it had just been created.
    Run,
}

/// Polls the refs of every repository that some workflow needs branches or tags of.
///
/// One look at a repository is one listing with exactly the prefixes that all its workflows need,
/// compared with what the ledger has recorded. What differs becomes one event for each ref, with
/// the commits before and after it: several pushes between two looks are one event, and a ref that
/// went away and came back at the same commit is none. What the ledger heard meanwhile from another
/// source (a webhook, say) is newer than the look.
///
/// Which prefixes were watched is kept in a cursor, which moves in the transaction of what was
/// found. Refs under a prefix that is newly watched are recorded and run nothing
/// ([`FirstSight`] is about a repository as a whole).
///
/// A look that fails is tried again later and later, at most half an hour apart; when the host says
/// until when it refuses, all repositories of that connection wait until then.
///
/// ```
/// use jiff::SignedDuration;
/// use workflows_scm::poll::{FirstSight, RefPoller};
///
/// # fn main() -> workflows_core::Result<()> {
/// let poller = RefPoller::every(SignedDuration::from_secs(30))?
///     .slowing_to(SignedDuration::from_mins(10))?
///     .first_sight(FirstSight::Run);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct RefPoller {
    name: SourceName,
    pace: Pace,
    timeout: SignedDuration,
    concurrency: usize,
    first_sight: FirstSight,
    branches: Option<Pattern>,
}

impl RefPoller {
    /// The shortest interval.
    pub const FLOOR: SignedDuration = SignedDuration::from_secs(1);

    /// A poller that looks at each repository at that interval, and up to a tenth later, so that
    /// not all are looked at together.
    ///
    /// # Errors
    ///
    /// `Invalid` when the interval is shorter than [`FLOOR`](Self::FLOOR).
    pub fn every(interval: SignedDuration) -> Result<Self> {
        if interval < Self::FLOOR {
            return Err(Error::invalid("set up polling", "the interval is shorter than a second")
                .with("interval", format!("{interval:#}")));
        }
        Ok(Self {
            name: SourceName::new("poll"),
            pace: Pace { shortest: interval, longest: interval },
            timeout: SignedDuration::from_mins(2),
            concurrency: 16,
            first_sight: FirstSight::default(),
            branches: None,
        })
    }

    /// Looks less often at a repository where nothing happens: it waits an eighth of the time since
    /// the last change, but no longer than this. Without this, the interval stays.
    ///
    /// # Errors
    ///
    /// `Invalid` when it is shorter than the interval.
    pub fn slowing_to(mut self, longest: SignedDuration) -> Result<Self> {
        if longest < self.pace.shortest {
            return Err(Error::invalid(
                "set up polling",
                "the longest interval is shorter than the interval itself",
            )
            .with("longest", format!("{longest:#}")));
        }
        self.pace.longest = longest;
        Ok(self)
    }

    /// Sets the name of the source; two pollers in one engine need two. Default: `poll`.
    #[must_use]
    pub fn named(mut self, name: impl Into<SourceName>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets what the first look at a repository makes of what it finds. Default:
    /// [`FirstSight::Baseline`].
    #[must_use]
    pub fn first_sight(mut self, first_sight: FirstSight) -> Self {
        self.first_sight = first_sight;
        self
    }

    /// Looks only at branches that match a pattern, such as `release/*`, whatever the workflows ask
    /// for; tags are looked at as they are asked for. A branch that comes to be looked at because
    /// the pattern is another one than before makes no event at first.
    ///
    /// # Errors
    ///
    /// `Invalid` when it is no pattern (see [`Pattern`]).
    pub fn only_branches(mut self, pattern: &str) -> Result<Self> {
        let compiled = Pattern::new(pattern).map_err(|message| {
            Error::invalid("set up polling", message).with("pattern", format!("{pattern:?}"))
        })?;
        self.branches = Some(compiled);
        Ok(self)
    }

    /// Sets how many repositories are looked at together. Default: 16.
    #[must_use]
    pub fn concurrency(mut self, repositories: usize) -> Self {
        self.concurrency = repositories.max(1);
        self
    }

    /// Sets how long one look may take. Default: two minutes.
    #[must_use]
    pub fn timeout(mut self, limit: SignedDuration) -> Self {
        self.timeout = limit;
        self
    }

    /// One look, within the time that it may take.
    async fn look(&self, context: &SourceContext, interest: &RepoInterest) -> Result<Reading> {
        let deadline = later(context.clock.now(), self.timeout);
        tokio::select! {
            reading = read(self, context, interest) => reading,
            () = context.clock.sleep_until(deadline) => Err(Error::transient(
                "poll repository",
                format!("it took longer than {:#}", self.timeout),
            )),
        }
    }
}

#[async_trait]
impl EventSource for RefPoller {
    fn name(&self) -> SourceName {
        self.name.clone()
    }

    async fn run(&self, context: SourceContext, shutdown: CancellationToken) -> Result<()> {
        let mut interests = context.interests.clone();
        let mut agenda = Agenda::default();
        let mut looks: FuturesUnordered<BoxFuture<'_, (Key, Result<Reading>)>> =
            FuturesUnordered::new();
        let mut interests_may_change = true;
        loop {
            let wanted = Arc::clone(&interests.borrow_and_update());
            agenda.follow(&wanted, context.clock.now());
            while looks.len() < self.concurrency
                && let Some((key, interest)) = agenda.begin(context.clock.now())
            {
                let context = &context;
                looks.push(Box::pin(async move {
                    let reading = self.look(context, &interest).await;
                    (key, reading)
                }));
            }
            let next = if looks.len() < self.concurrency { agenda.next() } else { None };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                changed = interests.changed(), if interests_may_change => {
                    interests_may_change = changed.is_ok();
                }
                Some((key, reading)) = looks.next(), if !looks.is_empty() => {
                    self.conclude(&context, &mut agenda, key, reading);
                }
                () = context.clock.sleep_until(next.unwrap_or(Timestamp::MAX)), if next.is_some() => {}
            }
        }
    }
}

impl RefPoller {
    /// Tells how a look went, and when the next one is.
    fn conclude(
        &self,
        context: &SourceContext,
        agenda: &mut Agenda,
        key: Key,
        reading: Result<Reading>,
    ) {
        let now = context.clock.now();
        let Some(entry) = agenda.entries.get_mut(&key) else {
            return;
        };
        let next = match &reading {
            Ok(reading) => {
                entry.failures = 0;
                if *reading == Reading::Changed {
                    entry.changed = now;
                }
                later(now, self.pace.next(key.jitter(), now.duration_since(entry.changed)))
            }
            Err(error) => {
                entry.failures = entry.failures.saturating_add(1);
                let next = later(now, self.pace.after_failures(key.jitter(), entry.failures));
                match error.kind() {
                    ErrorKind::RateLimited { until: Some(until) } => next.max(until),
                    _ => next,
                }
            }
        };
        match &reading {
            Ok(_) => context.succeeded(&key.to_string()),
            Err(error) => context.failed(&key.to_string(), error, next),
        }
        if let Err(error) = &reading
            && let ErrorKind::RateLimited { until: Some(until) } = error.kind()
        {
            agenda.hold(&key, until);
        }
        agenda.end(&key, next, now);
    }
}

fn later(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// A repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    tenant: Tenant,
    connection: ConnectionName,
    repo: Arc<str>,
}

impl Key {
    fn of(interest: &RepoInterest) -> Self {
        Self {
            tenant: interest.tenant.clone(),
            connection: interest.connection.clone(),
            repo: Arc::clone(&interest.repo),
        }
    }

    /// A number from 0 to 255 that is this repository's own.
    fn jitter(&self) -> u8 {
        let hash =
            workflows_core::hash_of(&[self.tenant.as_str(), self.connection.as_str(), &self.repo]);
        hash.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or(0)
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}:{}", self.tenant, self.connection, self.repo)
    }
}

/// Which repository is looked at when.
#[derive(Debug, Default)]
struct Agenda {
    entries: HashMap<Key, Entry>,
    due: BTreeSet<(Timestamp, Key)>,
    held: HashMap<(Tenant, ConnectionName), Timestamp>,
    wanted: Arc<Interests>,
}

#[derive(Debug)]
struct Entry {
    interest: RepoInterest,
    /// When the next look is; `None` while one goes on.
    next: Option<Timestamp>,
    /// Whether the interest changed during the look.
    stale: bool,
    failures: u32,
    changed: Timestamp,
}

impl Agenda {
    /// Takes up what is wanted now: what is new or wants other refs is looked at next.
    fn follow(&mut self, wanted: &Arc<Interests>, now: Timestamp) {
        if Arc::ptr_eq(&self.wanted, wanted) {
            return;
        }
        self.wanted = Arc::clone(wanted);
        let mut gone: BTreeSet<Key> = self.entries.keys().cloned().collect();
        for interest in wanted.repos.iter().filter(|interest| !interest.ref_prefixes.is_empty()) {
            let key = Key::of(interest);
            gone.remove(&key);
            match self.entries.get_mut(&key) {
                Some(entry) if entry.interest.ref_prefixes == interest.ref_prefixes => {}
                Some(entry) => {
                    entry.interest = interest.clone();
                    match entry.next.replace(now) {
                        Some(next) => {
                            self.due.remove(&(next, key.clone()));
                            self.due.insert((now, key));
                        }
                        None => {
                            entry.next = None;
                            entry.stale = true;
                        }
                    }
                }
                None => {
                    let interest = interest.clone();
                    let next = Some(now);
                    let entry = Entry { interest, next, stale: false, failures: 0, changed: now };
                    self.entries.insert(key.clone(), entry);
                    self.due.insert((now, key));
                }
            }
        }
        for key in gone {
            if let Some(entry) = self.entries.remove(&key)
                && let Some(next) = entry.next
            {
                self.due.remove(&(next, key));
            }
        }
    }

    /// Takes out a repository that is due.
    fn begin(&mut self, now: Timestamp) -> Option<(Key, RepoInterest)> {
        loop {
            let (at, _) = self.due.first()?;
            if *at > now {
                return None;
            }
            let (_, key) = self.due.pop_first()?;
            let held = self.held.get(&(key.tenant.clone(), key.connection.clone())).copied();
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            match held.filter(|until| *until > now) {
                Some(until) => {
                    entry.next = Some(until);
                    self.due.insert((until, key));
                }
                None => {
                    entry.next = None;
                    return Some((key, entry.interest.clone()));
                }
            }
        }
    }

    fn next(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Lets all repositories of a connection wait.
    fn hold(&mut self, key: &Key, until: Timestamp) {
        let held = self.held.entry((key.tenant.clone(), key.connection.clone())).or_insert(until);
        *held = until.max(*held);
    }

    /// Puts a repository back after a look.
    fn end(&mut self, key: &Key, next: Timestamp, now: Timestamp) {
        if let Some(entry) = self.entries.get_mut(key) {
            let next = if std::mem::take(&mut entry.stale) { now } else { next };
            if entry.next.replace(next).is_none() {
                self.due.insert((next, key.clone()));
            }
        }
    }
}
