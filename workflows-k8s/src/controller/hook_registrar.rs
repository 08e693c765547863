//! Keeping the hooks of a connection registered: [`HookRegistrar`].

use std::{collections::BTreeSet, sync::Arc};

use jiff::SignedDuration;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use workflows_core::{
    Error, ErrorKind, Result,
    source::{Interests, SourceContext},
};

use super::{
    client::KubeClient,
    hooks,
    objects::Object,
    served::{ServedMap, Usable},
    statuses::{Statuses, Verdict},
};

/// How often hooks are looked after when nothing changed.
const HOOKS_EVERY: SignedDuration = SignedDuration::from_hours(1);
/// When hooks that could not be registered are tried again.
const HOOKS_AGAIN: SignedDuration = SignedDuration::from_mins(1);

/// The condition that says whether repositories have their hooks.
const HOOKS_REGISTERED: &str = "HooksRegistered";

/// Looks after the hooks of one connection.
pub(super) struct HookRegistrar {
    pub(super) client: KubeClient,
    pub(super) statuses: Arc<Statuses>,
    pub(super) connection: Arc<Usable>,
    pub(super) served: watch::Receiver<Arc<ServedMap>>,
    pub(super) url: String,
}

impl HookRegistrar {
    /// Registers what is wanted, as that changes, until it is told to stop.
    pub(super) async fn run(&self, context: SourceContext, stop: CancellationToken) {
        let mut interests = context.interests.clone();
        loop {
            let wanted = self.wanted(&interests.borrow_and_update());
            let registered = tokio::select! {
                () = stop.cancelled() => return,
                registered = self.register(&context, &wanted) => registered,
            };
            let pause = match registered {
                Ok(()) => HOOKS_EVERY,
                Err(error) => {
                    tracing::warn!(%error, connection = self.connection.key.1, "webhooks are not registered");
                    HOOKS_AGAIN
                }
            };
            let now = context.clock.now();
            let next = now.checked_add(pause).unwrap_or(now);
            // Interests change often where workflows do; what they add is what counts.
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = context.clock.sleep_until(next) => break,
                    changed = interests.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        if self.wanted(&interests.borrow_and_update()) != wanted {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// The repositories that should have a hook.
    fn wanted(&self, interests: &Interests) -> BTreeSet<String> {
        let served = self.served.borrow();
        let users: BTreeSet<_> = served
            .iter()
            .filter(|(_, one)| one.connection.uid == self.connection.uid)
            .map(|(key, _)| key)
            .collect();
        let of_workflows = interests
            .repos
            .iter()
            .filter(|one| users.contains(&(one.tenant.clone(), one.connection.clone())))
            .map(|one| one.repo.to_string());
        self.connection.literal_repositories().map(str::to_owned).chain(of_workflows).collect()
    }

    /// The object, when it waits for its hooks to be removed; `None` when there is none to wait.
    async fn with_finalizer(&self, context: &SourceContext) -> Result<Option<Object>> {
        /// What others write meanwhile is read again so often.
        const TRIES: usize = 5;
        let mut last = None;
        for _ in 0..TRIES {
            let object = self.connection.object(&self.client, context.clock.now()).await?;
            let Some(object) = object else { return Ok(None) };
            if object.finalizers.iter().any(|one| one == hooks::FINALIZER) {
                return Ok(Some(object));
            }
            match hooks::set_finalizer(&self.client, &object, true, context.clock.now()).await {
                Ok(()) => return Ok(Some(object)),
                Err(error) if error.kind() == ErrorKind::Conflict => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::conflict("set a finalizer", "the object changes")))
    }

    /// Has the object wait for its hooks when it is deleted, has it name the repositories, and only
    /// then registers.
    async fn register(&self, context: &SourceContext, wanted: &BTreeSet<String>) -> Result<()> {
        let Some(object) = self.with_finalizer(context).await? else { return Ok(()) };
        let known = object.status["hooks"].as_array().into_iter().flatten();
        let known: BTreeSet<String> =
            known.filter_map(|one| one.as_str().map(str::to_owned)).collect();
        let named: BTreeSet<&String> = known.union(wanted).collect();
        self.statuses.tell_field(&object, "hooks", json!(named));
        self.statuses.written(&object).await;
        let done = hooks::ensure(&self.connection, &self.url, wanted, &*context.secrets).await;
        let verdict = match &done {
            Ok(()) => {
                Verdict::yes("Registered", format!("{} repositories have the hook", wanted.len()))
            }
            Err(error) => Verdict::no("NotRegistered", error.to_string()),
        };
        self.statuses.tell(&object, HOOKS_REGISTERED, verdict);
        done
    }
}
