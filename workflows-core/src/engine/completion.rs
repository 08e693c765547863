//! What a transport could not tell of an event, fetched when something hangs on it.

use std::sync::Arc;

use super::{core::Core, gate::Gate};
use crate::{
    Error, ErrorKind, Event, EventKind, Result,
    event::{Lacks, Revision},
    matching::{PlatformCommand, commands},
};

/// Completes an event, when it lacks something and something hangs on it. `None` when it stays as it
/// is.
pub(crate) async fn complete(core: &Core, event: &Arc<Event>) -> Result<Option<Arc<Event>>> {
    let Some(lacks) = &event.lacks else { return Ok(None) };
    if !something_hangs_on(core, event) {
        return Ok(None);
    }
    let gate = Gate::new(core, event);
    let repository = gate.repository().await?;
    let mut complete = Event::clone(event);
    let get = async |number: u64| {
        let Some(pull_requests) = repository.pull_requests() else {
            return Err(Error::unsupported(
                "get a pull request",
                "the host offers no pull requests, and the event does not carry its own",
            ));
        };
        core.call("get a pull request", pull_requests.get(number)).await
    };
    match lacks {
        Lacks::PullRequest { number } => complete.set_pull_request(&get(*number).await?),
        Lacks::PullRequestDetails { number } => {
            let found = get(*number).await?;
            if let Some(mut told) = complete.pull_request.take() {
                told.author = found.author;
                // It may have been retargeted since.
                told.base.sha = if found.base.reference == told.base.reference {
                    found.base.sha
                } else {
                    core.call("resolve", repository.resolve(&told.base.reference)).await?
                };
                complete.set_pull_request(&told);
            }
        }
        Lacks::Descent => {
            if let (Some(head), Some(base), Some(history)) =
                (&event.head, &event.base, repository.history())
            {
                let descends = history.is_ancestor(&base.sha, &head.sha);
                match core.call("compare commits", descends).await {
                    Ok(true) => {}
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                    // What was before may have been taken away since; what descends from it has it.
                    Ok(false) | Err(_) => complete.actions = vec!["forced".into()],
                }
            }
        }
        Lacks::Commit { reference } => {
            let commit = core.call("resolve", repository.resolve(reference)).await?;
            complete.head = Some(Revision::new(commit, Arc::clone(reference)));
        }
    }
    complete.lacks = None;
    Ok(Some(Arc::new(complete)))
}

/// Whether a trigger or a command may hang on an event. What the repository itself defines is known
/// only when the commit is.
fn something_hangs_on(core: &Core, event: &Event) -> bool {
    let registered = || {
        let of_kind = core.definitions.registered_triggers(&event.tenant, &event.repo, &event.kind);
        of_kind.is_some_and(|set| !set.is_empty())
    };
    let in_repository = || {
        let connection = core.connections.get(&event.tenant, &event.repo.connection);
        connection.is_ok_and(|connection| connection.options.definitions.is_some())
    };
    let commanded = || {
        let comment = event.comment.as_ref().filter(|_| event.kind == EventKind::COMMENT);
        comment.is_some_and(|comment| {
            commands(&comment.body).iter().any(|one| PlatformCommand::parse(one).is_some())
        })
    };
    registered() || in_repository() || commanded()
}
