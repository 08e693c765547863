//! Repositories that the program named: what their default branches define is read when the engine
//! starts, so that they are polled and their schedules fire before anything is heard of them.

use std::sync::Arc;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{backoff, core::Core};
use crate::{ConnectionName, SourceName, Tenant, source::ProgressSink};

/// How many repositories are read together.
const TOGETHER: usize = 16;

/// A repository that the program named.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Watched {
    pub(crate) tenant: Tenant,
    pub(crate) connection: ConnectionName,
    pub(crate) repo: Arc<str>,
}

/// Reads them all; one that does not answer is asked again, later and later.
pub(crate) async fn read(core: Arc<Core>, repositories: Vec<Watched>, shutdown: CancellationToken) {
    let reading = futures::stream::iter(repositories)
        .for_each_concurrent(TOGETHER, |watched| read_one(&core, watched));
    tokio::select! { () = reading => (), () = shutdown.cancelled() => () }
}

async fn read_one(core: &Core, watched: Watched) {
    let Watched { tenant, connection, repo } = watched;
    let source = SourceName::new("definitions");
    let what = format!("{tenant}/{connection}:{repo}");
    for attempt in 1_u32.. {
        match core.definitions.read_default_branch(core, &tenant, &connection, &repo).await {
            Ok(_) => return core.health.succeeded(&source, &what, core.clock.now()),
            Err(error) => {
                let next = backoff::next_try(&error, attempt, &what, core.clock.now());
                tracing::warn!(%error, repository = what, "the default branch cannot be read");
                core.health.failed(&source, &what, &error, next);
                core.clock.sleep_until(next).await;
            }
        }
    }
}
