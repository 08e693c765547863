//! What all pollers have in common: [`Poller`].

use async_trait::async_trait;
use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;
use workflows_core::{Error, EventSource, Result, SourceName, source::SourceContext};

use super::{
    FirstSight,
    interval::Pace,
    rounds::{Looks, go_round},
};

/// Looks at repositories again and again, each in its own time: at [`Refs`](super::Refs) or at
/// [`PullRequests`](super::PullRequests) of those of which some workflow needs them.
///
/// A look that fails is tried again later and later, at most half an hour apart; when the host says
/// until when it refuses, all repositories of that connection wait until then.
#[derive(Debug, Clone)]
pub struct Poller<L> {
    pub(super) name: SourceName,
    pub(super) pace: Pace,
    pub(super) timeout: SignedDuration,
    pub(super) concurrency: usize,
    pub(super) first_sight: FirstSight,
    pub(super) looks: L,
}

impl<L: Looks> Poller<L> {
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
            name: SourceName::new(L::NAME),
            pace: Pace { shortest: interval, longest: interval },
            timeout: SignedDuration::from_mins(2),
            concurrency: 16,
            first_sight: FirstSight::default(),
            looks: L::default(),
        })
    }

    /// Looks less often at a repository where nothing happens: it waits a twentieth of the time since
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

    /// Sets the name of the source; two pollers of one kind in one engine need two. Default: `poll`
    /// for refs, `poll-pull-requests` for pull requests.
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

#[async_trait]
impl<L: Looks> EventSource for Poller<L> {
    fn name(&self) -> SourceName {
        self.name.clone()
    }

    async fn run(&self, context: SourceContext, shutdown: CancellationToken) -> Result<()> {
        go_round(self, &context, &shutdown).await
    }
}
