//! What a commit keeps other transactions away from, where a ledger has several writers.
//!
//! Everything that a commit reads and then writes has a name, and a transaction takes the names of
//! all of it at once. So two commits about one thing go one after the other, also when the thing is
//! not there yet and has no row to keep; and none waits for another that waits for it.

use std::collections::BTreeSet;

use super::{Batch, Done, Ledger, query, rows::parse};
use crate::{
    EventKey, GroupKey, RunKey, Tenant,
    store::{CommentKey, CursorMove, Effects, Lease, StatusKey, WorkKey},
};

impl<C: Ledger> Batch<C> {
    pub(crate) async fn keep_others_away(&mut self, lease: &Lease, effects: &Effects) -> Done<()> {
        if !effects.corrections.is_empty() {
            self.db.begin_intake().await?;
        }
        let own = query("SELECT tenant, key FROM work WHERE id = $1 AND token = $2")
            .bind(lease.id)
            .bind(lease.token)
            .fetch_optional(&mut self.db)
            .await?;
        // A lease that was lost is refused by who asks for it next.
        let Some(own) = own else { return Ok(()) };
        let tenant = super::tenant_of(own.try_get(0)?)?;
        let key: WorkKey = parse(own.try_get(1)?)?;
        let mut things = things(effects);
        things.insert(work(&tenant, &key));
        self.db.lock(things).await
    }
}

fn things(effects: &Effects) -> BTreeSet<String> {
    let mut things = BTreeSet::new();
    for run in effects.runs.iter().chain(effects.changes.iter().map(|change| &change.run)) {
        things.insert(self::run(&run.tenant, &run.key));
        things.insert(event(&run.tenant, &run.event));
        things.extend(run.groups.iter().map(|one| group(&run.tenant, &one.group)));
    }
    if let Some(batch) = &effects.decisions {
        things.insert(event(&batch.tenant, &batch.event));
    }
    things.extend(effects.groups.iter().map(|one| group(&one.tenant, &one.group)));
    things.extend(effects.statuses.iter().map(|desire| status(&desire.key)));
    things.extend(effects.reported.iter().map(|record| status(&record.desire.key)));
    let notifications = effects.notifications.iter().chain(&effects.delivered);
    things.extend(notifications.map(|one| run(&one.tenant, &one.run)));
    things.extend(effects.cursors.iter().map(cursor));
    things.extend(effects.work.iter().map(|new| work(&new.work.tenant, &new.work.key)));
    things
}

/// Names of things. Work goes by the name of what it is about.
fn work(tenant: &Tenant, key: &WorkKey) -> String {
    match key {
        WorkKey::Event { event, .. } | WorkKey::Acknowledgement { event } => {
            self::event(tenant, event)
        }
        WorkKey::Run { run } | WorkKey::Outbox { run, .. } => self::run(tenant, run),
        WorkKey::Status { status } => self::status(status),
        WorkKey::Comment { comment } => {
            let CommentKey { repo, pull_request, purpose } = comment;
            format!("comment/{tenant}/{}/{pull_request}/{}", repo.id, purpose.as_str())
        }
    }
}

pub(super) fn run(tenant: &Tenant, key: &RunKey) -> String {
    format!("run/{tenant}/{key}")
}

pub(super) fn event(tenant: &Tenant, key: &EventKey) -> String {
    format!("event/{tenant}/{key}")
}

pub(super) fn status(key: &StatusKey) -> String {
    format!("status/{}/{}/{}/{}", key.tenant, key.repo.id, key.commit, key.context)
}

pub(super) fn cursor(one: &CursorMove) -> String {
    format!("cursor/{}/{}", one.tenant, one.name)
}

fn group(tenant: &Tenant, key: &GroupKey) -> String {
    format!("group/{tenant}/{key}")
}
