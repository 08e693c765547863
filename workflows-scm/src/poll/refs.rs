//! Finding pushes, tags and deletions: [`RefPoller`].

use async_trait::async_trait;
use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;
use workflows_core::{
    Error, EventSource, Result, SourceName,
    matching::Pattern,
    source::{RepoInterest, SourceContext},
};

use super::{
    FirstSight,
    interval::Pace,
    ref_reading::read,
    rounds::{Looks, Reading, go_round},
};

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
    pub(super) name: SourceName,
    pace: Pace,
    timeout: SignedDuration,
    concurrency: usize,
    pub(super) first_sight: FirstSight,
    pub(super) branches: Option<Pattern>,
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
}

#[async_trait]
impl Looks for RefPoller {
    fn wants(&self, interest: &RepoInterest) -> bool {
        !interest.ref_prefixes.is_empty()
    }

    fn wants_the_same(&self, one: &RepoInterest, other: &RepoInterest) -> bool {
        one.ref_prefixes == other.ref_prefixes
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

    async fn look(&self, context: &SourceContext, interest: &RepoInterest) -> Result<Reading> {
        read(self, context, interest).await
    }
}

#[async_trait]
impl EventSource for RefPoller {
    fn name(&self) -> SourceName {
        self.name.clone()
    }

    async fn run(&self, context: SourceContext, shutdown: CancellationToken) -> Result<()> {
        go_round(self, &context, &shutdown).await
    }
}
