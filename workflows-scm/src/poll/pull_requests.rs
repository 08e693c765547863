//! Finding what happens to pull requests: [`PullRequestPoller`].

use async_trait::async_trait;
use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;
use workflows_core::{
    Error, EventKind, EventSource, Result, SourceName,
    source::{RepoInterest, SourceContext},
};

use super::{
    FirstSight,
    interval::Pace,
    pull_request_reading::read,
    rounds::{Looks, Reading, go_round},
};

/// Polls the pull requests of every repository that some workflow needs pull requests, labels or
/// comments of.
///
/// One look is one listing of what changed last, newest first, read as far back as the last look and
/// a little further. Each pull request becomes at most one event, with the actions that lead from the
/// recorded state to the present one: what was done and undone between two looks is not seen. Labels
/// are compared one by one. When a pull request changed, new comments are asked for, too, for a
/// comment changes its pull request; so a look at a repository where nothing happens is one request,
/// which costs little where the host can say that nothing changed. A comment is an event when it is
/// new; that it was edited or deleted is not, and what was written with a review as a whole is not
/// seen.
///
/// The first look at a repository records the pull requests that are open and makes no events, unless
/// [`first_sight`](Self::first_sight) says otherwise. The place up to which was read is kept in a
/// cursor, which moves in the transaction of what was found.
///
/// Failures and refusals are as for [`RefPoller`](super::RefPoller). A connection that offers no pull
/// requests is told as a failure.
///
/// ```
/// use jiff::SignedDuration;
/// use workflows_scm::poll::PullRequestPoller;
///
/// # fn main() -> workflows_core::Result<()> {
/// let poller = PullRequestPoller::every(SignedDuration::from_secs(45))?
///     .slowing_to(SignedDuration::from_mins(27))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct PullRequestPoller {
    pub(super) name: SourceName,
    pace: Pace,
    timeout: SignedDuration,
    concurrency: usize,
    per_minute: u32,
    pub(super) first_sight: FirstSight,
}

impl PullRequestPoller {
    /// The shortest interval.
    pub const FLOOR: SignedDuration = SignedDuration::from_secs(1);

    /// A poller that looks at each repository at that interval, and up to a tenth later.
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
            name: SourceName::new("poll-pull-requests"),
            pace: Pace { shortest: interval, longest: interval },
            timeout: SignedDuration::from_mins(2),
            concurrency: 16,
            per_minute: 700,
            first_sight: FirstSight::default(),
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

    /// Sets the name of the source; two pollers in one engine need two. Default:
    /// `poll-pull-requests`.
    #[must_use]
    pub fn named(mut self, name: impl Into<SourceName>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets what the first look at a repository makes of the pull requests that are open. Default:
    /// [`FirstSight::Baseline`].
    #[must_use]
    pub fn first_sight(mut self, first_sight: FirstSight) -> Self {
        self.first_sight = first_sight;
        self
    }

    /// Sets how many looks a minute are begun through one connection. Default: 700, which leaves
    /// something of the 900 requests a minute that GitHub allows for other things. Looks beyond it
    /// wait their turn.
    #[must_use]
    pub fn at_most_per_minute(mut self, looks: u32) -> Self {
        self.per_minute = looks.max(1);
        self
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
}

/// Kinds of events that come of pull requests.
const KINDS: [EventKind; 3] = [EventKind::PULL_REQUEST, EventKind::LABEL, EventKind::COMMENT];

#[async_trait]
impl Looks for PullRequestPoller {
    fn wants(&self, interest: &RepoInterest) -> bool {
        KINDS.iter().any(|kind| interest.kinds.contains(kind))
    }

    fn wants_the_same(&self, _: &RepoInterest, _: &RepoInterest) -> bool {
        true
    }

    fn pace(&self) -> Pace {
        self.pace
    }

    fn timeout(&self) -> SignedDuration {
        self.timeout
    }

    fn concurrency(&self) -> usize {
        self.concurrency
    }

    fn spacing(&self) -> Option<SignedDuration> {
        Some(SignedDuration::from_micros(60_000_000 / i64::from(self.per_minute)))
    }

    async fn look(&self, context: &SourceContext, interest: &RepoInterest) -> Result<Reading> {
        read(self, context, interest).await
    }
}

#[async_trait]
impl EventSource for PullRequestPoller {
    fn name(&self) -> SourceName {
        self.name.clone()
    }

    async fn run(&self, context: SourceContext, shutdown: CancellationToken) -> Result<()> {
        go_round(self, &context, &shutdown).await
    }
}
