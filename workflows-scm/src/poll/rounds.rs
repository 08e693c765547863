//! Looking at repositories again and again, each in its own time.

use std::{fmt::Debug, future::Future, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use workflows_core::{
    Error, ErrorKind, Result,
    source::{RepoInterest, SourceContext},
};

use super::{
    Poller,
    agenda::{Agenda, Key},
    interval::Pace,
    later,
};

/// So many observations are handed in together.
pub(super) const TOGETHER: usize = 1_000;

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Something that was news.
    Changed,
    /// Nothing new.
    Unchanged,
    /// Nothing new; by the host's clock something last changed then.
    UnchangedSince(Timestamp),
}

/// What is looked at.
#[async_trait]
pub trait Looks: Debug + Clone + Default + Send + Sync + 'static {
    /// What a poller of it is called when it is given no name.
    const NAME: &'static str;

    /// Whether there is something to look at.
    fn wants(&self, interest: &RepoInterest) -> bool;

    /// Whether two interests in a repository want the same.
    fn wants_the_same(&self, one: &RepoInterest, other: &RepoInterest) -> bool;

    /// How long it is from one look through a connection to the next at least.
    fn spacing(&self) -> Option<SignedDuration> {
        None
    }

    /// Looks once, and hands in what is new.
    async fn look(
        poller: &Poller<Self>,
        context: &SourceContext,
        interest: &RepoInterest,
    ) -> Result<Reading>;
}

/// Looks until it is told to stop.
pub(super) async fn go_round<L: Looks>(
    poller: &Poller<L>,
    context: &SourceContext,
    shutdown: &CancellationToken,
) -> Result<()> {
    let mut interests = context.interests.clone();
    let mut agenda = Agenda::default();
    let mut under_way: FuturesUnordered<BoxFuture<'_, (Key, Result<Reading>)>> =
        FuturesUnordered::new();
    let mut interests_may_change = true;
    loop {
        let wanted = Arc::clone(&interests.borrow_and_update());
        agenda.follow(&poller.looks, &wanted, context.clock.now());
        while under_way.len() < poller.concurrency
            && let Some((key, interest)) = agenda.begin(poller.looks.spacing(), context.clock.now())
        {
            under_way.push(Box::pin(async move {
                let reading = in_time(poller, context, &interest).await;
                (key, reading)
            }));
        }
        let next = if under_way.len() < poller.concurrency { agenda.next() } else { None };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            changed = interests.changed(), if interests_may_change => {
                interests_may_change = changed.is_ok();
            }
            Some((key, reading)) = under_way.next(), if !under_way.is_empty() => {
                conclude(poller.pace, context, &mut agenda, key, reading);
            }
            () = context.clock.sleep_until(next.unwrap_or(Timestamp::MAX)), if next.is_some() => {}
        }
    }
}

/// One look, within the time that it may take.
async fn in_time<L: Looks>(
    poller: &Poller<L>,
    context: &SourceContext,
    interest: &RepoInterest,
) -> Result<Reading> {
    let deadline = later(context.clock.now(), poller.timeout);
    tokio::select! {
        reading = L::look(poller, context, interest) => reading,
        () = context.clock.sleep_until(deadline) => Err(Error::transient(
            "poll repository",
            format!("it took longer than {:#}", poller.timeout),
        )),
    }
}

/// Tells how a look went, and when the next one is.
fn conclude(
    pace: Pace,
    context: &SourceContext,
    agenda: &mut Agenda,
    key: Key,
    reading: Result<Reading>,
) {
    let now = context.clock.now();
    let Some(entry) = agenda.entries.get_mut(&key) else {
        return;
    };
    // A limit is no failure: it says until when, and whoever is held back keeps its turn.
    if let Err(error) = &reading
        && let ErrorKind::RateLimited { until: Some(until) } = error.kind()
    {
        let until = until.max(later(now, SignedDuration::from_secs(1)));
        context.failed(&key.to_string(), error, until);
        agenda.hold(&key, until, now);
        agenda.put_off(&key, until, now);
        return;
    }
    let next = match &reading {
        Ok(reading) => {
            entry.failures = 0;
            match reading {
                Reading::Changed => entry.changed = now,
                Reading::UnchangedSince(at) => entry.changed = now.min(*at),
                Reading::Unchanged => {}
            }
            let unchanged_for = now.duration_since(entry.changed);
            let interval = if std::mem::replace(&mut entry.looked, true) {
                pace.next(key.jitter(), unchanged_for)
            } else {
                pace.after_first(key.jitter(), unchanged_for)
            };
            agenda.is_looked_at_every(&key, pace.next(key.jitter(), unchanged_for));
            later(now, interval)
        }
        Err(_) => {
            entry.failures = entry.failures.saturating_add(1);
            later(now, pace.after_failures(key.jitter(), entry.failures))
        }
    };
    match &reading {
        Ok(_) => context.succeeded(&key.to_string()),
        Err(error) => context.failed(&key.to_string(), error, next),
    }
    agenda.end(&key, next, now);
}

/// Reads again when another replica, looking at the same repository, was quicker.
pub(super) async fn again_on_conflict<F: Future<Output = Result<Reading>>>(
    mut read: impl FnMut() -> F,
) -> Result<Reading> {
    const TRIES: u32 = 3;
    let mut tries = 1;
    loop {
        match read().await {
            Err(error) if error.kind() == ErrorKind::Conflict && tries < TRIES => tries += 1,
            reading => return reading,
        }
    }
}
