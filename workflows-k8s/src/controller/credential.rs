//! Telling before the credential of an ScmConnection is accepted no more.

use std::sync::Arc;

use jiff::SignedDuration;
use workflows_core::{ErrorKind, Result, SharedClock};

use super::{
    client::KubeClient,
    kinds::CredentialWatch,
    served::Usable,
    statuses::{Statuses, Verdict},
};

/// How often it is looked at.
const EVERY: SignedDuration = SignedDuration::from_hours(1);
/// When what could not be asked is asked again.
const AGAIN: SignedDuration = SignedDuration::from_mins(1);

/// The condition that says whether the credential is accepted, and goes on to be.
const CREDENTIAL_VALID: &str = "CredentialValid";

/// Looks at the credential of one connection, again and again.
pub(super) async fn watch(
    client: &KubeClient,
    statuses: &Statuses,
    connection: &Usable,
    credential: &Arc<dyn CredentialWatch>,
    clock: &SharedClock,
) {
    loop {
        let looked = look(client, statuses, connection, credential, clock).await;
        let pause = match looked {
            Ok(()) => EVERY,
            Err(error) => {
                tracing::info!(%error, connection = connection.key.1, "its credential cannot be looked at");
                AGAIN
            }
        };
        let now = clock.now();
        clock.sleep_until(now.checked_add(pause).unwrap_or(now)).await;
    }
}

async fn look(
    client: &KubeClient,
    statuses: &Statuses,
    connection: &Usable,
    credential: &Arc<dyn CredentialWatch>,
    clock: &SharedClock,
) -> Result<()> {
    let verdict = match credential.warning().await {
        Ok(None) => Verdict::yes("Accepted", "it does not expire within two weeks"),
        Ok(Some(warning)) => Verdict::no("Expires", warning),
        Err(error) if error.kind() == ErrorKind::Denied => {
            Verdict::no("Refused", error.to_string())
        }
        Err(error) => return Err(error),
    };
    if let Some(object) = connection.object(client, clock.now()).await? {
        statuses.tell(&object, CREDENTIAL_VALID, verdict);
    }
    Ok(())
}
