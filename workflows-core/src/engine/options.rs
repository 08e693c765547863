//! What an engine can be told about its ways.

use std::sync::Arc;

use jiff::SignedDuration;

/// What an engine can be told about its ways. The defaults suit an embedded engine.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EngineOptions {
    /// How long one call to a host, a sink or a notifier may take.
    pub call_timeout: SignedDuration,
    /// How many pieces of work of one stage are under way together.
    pub concurrency: usize,
    /// How long a stage's claim is leased; it is extended while the stage works.
    pub lease: SignedDuration,
    /// How often a run is looked at when its sink has not told of a change.
    pub observe_interval: SignedDuration,
    /// For how long a sink may not know a run that it was given; then the run counts as broken off.
    pub forgotten_after: SignedDuration,
    /// The least time between two progress updates of a run's status and between two progress
    /// notifications.
    pub progress_interval: SignedDuration,
    /// For how long an event is tried that cannot be decided because something does not answer;
    /// then the failure is recorded as its decision. Time in which no engine was there to try does
    /// not count, here and for runs and statuses. All workflows wait, those too that are
    /// registered, when what the event's repository defines cannot be read: an event has one
    /// decision. Where that must not be, [`ConnectionOptions::registered_only`] keeps the
    /// repository's own definitions out.
    ///
    /// [`ConnectionOptions::registered_only`]: super::ConnectionOptions::registered_only
    pub give_up_matching_after: SignedDuration,
    /// For how long a run is tried to be created; then it is refused.
    pub give_up_dispatch_after: SignedDuration,
    /// For how long a notification is tried; then it is a dead letter.
    pub notification_max_age: SignedDuration,
    /// For how long a status is tried; then it is given up until its run changes again. One on a
    /// commit that the host does not know is given up after six hours.
    pub status_max_age: SignedDuration,
    /// What the names of statuses begin with.
    pub status_prefix: Arc<str>,
    /// How many lines of a failing step are kept with the run.
    pub failure_lines: usize,
    /// How many runs of a tenant may wait in queues; a further one is refused by the rule of that
    /// name.
    pub max_queued_runs_per_tenant: u32,
    /// How long raw payloads are kept.
    pub keep_payloads: SignedDuration,
    /// How long events and decisions without a kept run are kept.
    pub keep_events: SignedDuration,
    /// How long runs that ended are kept when their workflow does not say.
    pub keep_runs: SignedDuration,
    /// How often retention is looked after.
    pub prune_interval: SignedDuration,
    /// For how long a graceful shutdown waits for what is under way.
    pub drain: SignedDuration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            call_timeout: SignedDuration::from_secs(30),
            concurrency: 16,
            lease: SignedDuration::from_secs(30),
            observe_interval: SignedDuration::from_secs(30),
            forgotten_after: SignedDuration::from_mins(2),
            progress_interval: SignedDuration::from_secs(30),
            give_up_matching_after: SignedDuration::from_hours(6),
            give_up_dispatch_after: SignedDuration::from_hours(6),
            notification_max_age: SignedDuration::from_hours(24),
            status_max_age: SignedDuration::from_hours(72),
            status_prefix: "workflows".into(),
            failure_lines: 20,
            max_queued_runs_per_tenant: 1_000,
            keep_payloads: SignedDuration::from_hours(24 * 14),
            keep_events: SignedDuration::from_hours(24 * 90),
            keep_runs: SignedDuration::from_hours(24 * 365),
            prune_interval: SignedDuration::from_mins(10),
            drain: SignedDuration::from_secs(20),
        }
    }
}
