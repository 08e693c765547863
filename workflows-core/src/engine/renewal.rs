//! Renewing the credentials of runs that live longer than those.

use jiff::SignedDuration;

use super::{
    core::Core,
    dispatcher::{credential, sink_run},
    masking::fingerprints,
};
use crate::{Result, Run, RunSink};

/// How long before its end a credential is renewed. A clone that has begun may take so long.
const BEFORE_ITS_END: SignedDuration = SignedDuration::from_mins(15);

/// Gives a run that is under way a newer credential when its own is about to expire. What goes wrong
/// is tried again when the run is looked at next.
pub(super) async fn renew(core: &Core, sink: &dyn RunSink, run: &mut Run) {
    let is_due = run
        .credential_until
        .is_some_and(|until| until.duration_since(core.clock.now()) < BEFORE_ITS_END);
    if !is_due || run.state.is_terminal() {
        return;
    }
    if let Err(error) = replace(core, sink, run).await {
        tracing::warn!(%error, run = %run.key, "its credential was not renewed");
    }
}

async fn replace(core: &Core, sink: &dyn RunSink, run: &mut Run) -> Result<()> {
    let Some(given) = credential(core, run).await? else { return Ok(()) };
    let until = given.credential.expires_at;
    if until.is_some() && until <= run.credential_until {
        return Ok(());
    }
    core.call("renew a run's credential", sink.renew(&sink_run(run), &given)).await?;
    // What was said while the one before was there may come to be shown later.
    run.secrets.extend(fingerprints(&given.credential));
    run.credential_until = until;
    Ok(())
}
