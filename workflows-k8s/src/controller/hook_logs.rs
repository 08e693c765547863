//! Finding what never arrived of what hooks of repositories sent: [`HookLogs`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use jiff::SignedDuration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use workflows_core::{
    EventSource, Result, SourceName,
    source::{Interests, SourceContext},
};
use workflows_scm::webhook::{DeliverySweep, WebhookReceiver};

/// How often a log is looked at.
const EVERY: SignedDuration = SignedDuration::from_mins(5);
/// All logs together cost no more than one look in this time, however many there are.
const APART: SignedDuration = SignedDuration::from_secs(10);

/// Looks at the delivery logs of the repositories that some workflow waits for events of, where each
/// has a hook of its own.
#[derive(Debug)]
pub(super) struct HookLogs {
    pub(super) receiver: WebhookReceiver,
}

impl HookLogs {
    /// What looks at the log of a repository's hooks.
    pub(super) fn sweep(&self, repo: Arc<str>) -> DeliverySweep {
        DeliverySweep::of_repository(self.receiver.clone(), repo)
    }
}

#[async_trait]
impl EventSource for HookLogs {
    fn name(&self) -> SourceName {
        format!("{}-logs", self.receiver.source()).into()
    }

    async fn run(&self, context: SourceContext, shutdown: CancellationToken) -> Result<()> {
        let mut interests = context.interests.clone();
        let mut running: BTreeMap<Arc<str>, CancellationToken> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        loop {
            let wanted = repositories(&interests.borrow_and_update());
            running.retain(|repo, stop| {
                let stays = wanted.contains(repo);
                if !stays {
                    stop.cancel();
                }
                stays
            });
            let every = interval(wanted.len());
            for repo in wanted {
                if running.contains_key(&repo) {
                    continue;
                }
                let sweep = self.sweep(Arc::clone(&repo)).every(every)?;
                let stop = shutdown.child_token();
                running.insert(repo, stop.clone());
                let context = context.clone();
                tasks.spawn(async move { sweep.run(context, stop).await });
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = interests.changed() => if changed.is_err() { break },
                Some(ended) = tasks.join_next() => match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::error!(%error, "a log of deliveries is not looked at"),
                    Err(error) => tracing::error!(%error, "a look at deliveries has ended"),
                },
            }
        }
        while tasks.join_next().await.is_some() {}
        Ok(())
    }
}

/// The repositories that some workflow waits for events of.
pub(super) fn repositories(interests: &Interests) -> BTreeSet<Arc<str>> {
    interests.repos.iter().map(|one| Arc::clone(&one.repo)).collect()
}

/// How often each of so many logs is looked at.
fn interval(logs: usize) -> SignedDuration {
    EVERY.max(APART * i32::try_from(logs).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_logs_are_looked_at_less_often() {
        assert_eq!(interval(0), EVERY);
        assert_eq!(interval(30), EVERY);
        assert_eq!(interval(360), SignedDuration::from_hours(1));
        assert!(interval(usize::MAX) > SignedDuration::from_hours(24));
    }
}
