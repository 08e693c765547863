//! Committing what came of a claim: first everything that can refuse it, then the writes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    Batch, Done, Ledger,
    admit::BASELINE,
    nanos, query,
    queue::Put,
    rows::{json, parse},
};
use crate::{
    Approval, Error, Event, GroupKey, Run, RunKey, RunState, Tenant,
    store::{
        Committed, DecisionBatch, Effects, GroupExpectation, Lease, NotificationState,
        OutboxNotification, RunChange, StatusDesire, StatusKey, StatusRecord, StatusSubject,
        SubjectCorrection, group_standing,
    },
    workflow::Strategy,
};

type Standing = BTreeMap<GroupKey, (Strategy, RunState, bool)>;

/// A run as the ledger has it, as far as a change needs to know.
#[derive(Debug)]
struct Kept {
    id: i64,
    version: i64,
    standing: Standing,
}

impl<C: Ledger> Batch<C> {
    pub(crate) async fn commit(&mut self, lease: &Lease, effects: &Effects) -> Done<Committed> {
        if C::SHARED {
            self.keep_others_away(lease, effects).await?;
        }
        let held = self.held("commit", lease).await?;
        self.check_groups(&effects.groups).await?;
        self.check_changes(&effects.runs, &effects.changes).await?;
        self.check_cursors(effects).await?;

        self.db.reserve(serials(effects)).await?;
        let mut committed = Committed::default();
        let mut touched = BTreeSet::new();
        if let Some(event) = &effects.completed {
            self.complete(event).await?;
        }
        if let Some(batch) = &effects.decisions {
            self.decide(batch).await?;
        }
        for (digest, set) in &effects.trigger_sets {
            query(
                "INSERT INTO trigger_sets (tenant, digest, body) VALUES ($1, $2, $3) \
                 ON CONFLICT DO NOTHING",
            )
            .bind(held.tenant.as_str())
            .bind(&**digest)
            .bind(json(set)?)
            .execute(&mut self.db)
            .await?;
        }
        for run in &effects.runs {
            if self.create(run, &mut touched).await? {
                committed.created.push(run.key.clone());
            }
        }
        for RunChange { run } in &effects.changes {
            self.change(run, &mut touched).await?;
        }
        for (tenant, group) in touched {
            self.count_group(&tenant, &group).await?;
        }
        for desire in &effects.statuses {
            self.desire(desire).await?;
        }
        for record in &effects.reported {
            self.show(record).await?;
        }
        for notification in &effects.notifications {
            self.notify(notification).await?;
        }
        for notification in &effects.delivered {
            self.delivered(notification).await?;
        }
        for approval in &effects.approvals {
            self.approve(approval).await?;
        }
        for correction in &effects.corrections {
            self.correct(correction).await?;
        }
        for cursor in &effects.cursors {
            self.move_cursor(cursor).await?;
        }
        let mut put: Vec<Put> = Vec::new();
        for new in &effects.work {
            let one = self.put(new).await?;
            put.retain(|earlier| earlier.id != one.id);
            if one.id != lease.id {
                put.push(one);
            }
        }
        self.finish(lease, effects.again).await?;
        self.stages.insert(held.stage);
        let mut next = Vec::new();
        for one in put {
            if effects.claim_next.is_some() && one.ready {
                next.push(one.id);
            } else {
                self.stages.insert(one.stage);
            }
        }
        if let Some(by) = effects.claim_next {
            committed.claims = self.lease(&next, by).await?;
        }
        Ok(committed)
    }

    async fn complete(&mut self, event: &Event) -> Done<()> {
        let number = event.pull_request.as_ref().map(|one| one.number);
        query(
            "UPDATE events SET head = $1, pull_request = $2, body = $3 \
             WHERE tenant = $4 AND key = $5",
        )
        .bind(event.head.as_ref().map(|head| head.sha.as_str()))
        .bind(number.and_then(|number| i64::try_from(number).ok()))
        .bind(json(event)?)
        .bind(event.tenant.as_str())
        .bind(event.key.as_str())
        .execute(&mut self.db)
        .await?;
        Ok(())
    }

    async fn check_groups(&mut self, expected: &[GroupExpectation]) -> Done<()> {
        for one in expected {
            let version: Option<i64> =
                query("SELECT version FROM group_versions WHERE tenant = $1 AND name = $2")
                    .bind(one.tenant.as_str())
                    .bind(one.group.as_str())
                    .value(&mut self.db)
                    .await?;
            if version.unwrap_or(0) != one.version {
                return Err(Error::conflict("commit", "a group has changed; read it again")
                    .with("group", &one.group)
                    .into());
            }
        }
        Ok(())
    }

    async fn check_changes(&mut self, created: &[Run], changes: &[RunChange]) -> Done<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut versions: HashMap<(&Tenant, &RunKey), i64> = HashMap::new();
        for run in created {
            if !self.run_is_known(run).await? {
                versions.entry((&run.tenant, &run.key)).or_insert(run.version);
            }
        }
        for RunChange { run } in changes {
            let present = match versions.get(&(&run.tenant, &run.key)) {
                Some(version) => Some(*version),
                None => self.kept(run).await?.map(|kept| kept.version),
            };
            if present != Some(run.version) {
                return Err(Error::conflict("commit", "a run has changed; read it again")
                    .with("run", &run.key)
                    .with("expected version", run.version)
                    .into());
            }
            versions.insert((&run.tenant, &run.key), run.version + 1);
        }
        Ok(())
    }

    async fn check_cursors(&mut self, effects: &Effects) -> Done<()> {
        let mut moved = HashMap::new();
        for one in &effects.cursors {
            match moved.insert((&one.tenant, &one.name), &one.to) {
                Some(to) if Some(to) == one.from.as_ref() => {}
                Some(_) => {
                    let message = "it is not where the move before left it";
                    return Err(Error::conflict("move a cursor", message)
                        .with("cursor", &one.name)
                        .into());
                }
                None => self.check_cursor(one).await??,
            }
        }
        Ok(())
    }

    async fn decide(&mut self, batch: &DecisionBatch) -> Done<()> {
        let id = self.db.next_serial().await?;
        let body = json(&DecisionBatch { id, ..batch.clone() })?;
        query(
            "INSERT INTO decisions (id, tenant, event, attempt, body) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(id)
        .bind(batch.tenant.as_str())
        .bind(batch.event.as_str())
        .bind(batch.attempt.as_str())
        .bind(body)
        .execute(&mut self.db)
        .await?;
        for guard in &batch.guards {
            query(
                "INSERT INTO decision_sets (tenant, digest, decision) VALUES ($1, $2, $3) \
                 ON CONFLICT DO NOTHING",
            )
            .bind(batch.tenant.as_str())
            .bind(&*guard.set)
            .bind(id)
            .execute(&mut self.db)
            .await?;
        }
        Ok(())
    }

    async fn run_is_known(&mut self, run: &Run) -> Done<bool> {
        let found: Option<i64> = query("SELECT run FROM run_keys WHERE tenant = $1 AND key = $2")
            .bind(run.tenant.as_str())
            .bind(run.key.as_str())
            .value(&mut self.db)
            .await?;
        Ok(found.is_some())
    }

    async fn kept(&mut self, run: &Run) -> Done<Option<Kept>> {
        let row = query(
            "SELECT r.id, r.version, r.standing FROM run_keys k JOIN runs r ON r.id = k.run \
             WHERE k.tenant = $1 AND k.key = $2",
        )
        .bind(run.tenant.as_str())
        .bind(run.key.as_str())
        .fetch_optional(&mut self.db)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let standing: Vec<(GroupKey, (Strategy, RunState, bool))> = parse(row.try_get(2)?)?;
        let standing = standing.into_iter().collect();
        Ok(Some(Kept { id: row.try_get(0)?, version: row.try_get(1)?, standing }))
    }

    /// Creates a run, unless one with its key is there or ever was.
    async fn create(
        &mut self,
        run: &Run,
        touched: &mut BTreeSet<(Tenant, GroupKey)>,
    ) -> Done<bool> {
        if self.run_is_known(run).await? {
            return Ok(false);
        }
        let id = self.db.next_serial().await?;
        query("INSERT INTO run_keys (tenant, key, run) VALUES ($1, $2, $3)")
            .bind(run.tenant.as_str())
            .bind(run.key.as_str())
            .bind(id)
            .execute(&mut self.db)
            .await?;
        self.write_run(
            "INSERT INTO runs (version, repo, repo_name, workflow_repo, workflow, trigger_name, \
             subject, event, commit_id, pull_request, intake, state, terminal, cancelling, \
             created_at, finished_at, standing, body, id, tenant, key) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)",
            id,
            run,
        )
        .await?;
        self.stand(id, run, &Standing::new(), touched).await?;
        Ok(true)
    }

    async fn change(&mut self, run: &Run, touched: &mut BTreeSet<(Tenant, GroupKey)>) -> Done<()> {
        let Some(kept) = self.kept(run).await? else { return Ok(()) };
        let mut run = run.clone();
        run.version += 1;
        self.write_run(
            "UPDATE runs SET version = $1, repo = $2, repo_name = $3, workflow_repo = $4, \
             workflow = $5, trigger_name = $6, subject = $7, event = $8, commit_id = $9, \
             pull_request = $10, intake = $11, state = $12, terminal = $13, cancelling = $14, \
             created_at = $15, finished_at = $16, standing = $17, body = $18 \
             WHERE id = $19 AND tenant = $20 AND key = $21",
            kept.id,
            &run,
        )
        .await?;
        self.stand(kept.id, &run, &kept.standing, touched).await
    }

    async fn write_run(&mut self, sql: &'static str, id: i64, run: &Run) -> Done<()> {
        let standing: Vec<_> = group_standing(run).into_iter().collect();
        query(sql)
            .bind(run.version)
            .bind(run.repo.id.as_str())
            .bind(&*run.repo.name)
            .bind(run.workflow.repo.as_ref().map(|repo| repo.as_str()))
            .bind(&*run.workflow.name)
            .bind(&*run.trigger)
            .bind(run.subject.as_str())
            .bind(run.event.as_str())
            .bind(run.commit.as_ref().map(|commit| commit.as_str()))
            .bind(run.pull_request.map(u64::cast_signed))
            .bind(run.order)
            .bind(run.state.as_str())
            .bind(run.state.is_terminal())
            .bind(run.cancel.is_some())
            .bind(nanos(run.created_at))
            .bind(nanos(run.finished_at.unwrap_or(run.created_at)))
            .bind(json(&standing)?)
            .bind(json(run)?)
            .bind(id)
            .bind(run.tenant.as_str())
            .bind(run.key.as_str())
            .execute(&mut self.db)
            .await?;
        Ok(())
    }

    /// Enters a run into its groups and out of those that it left.
    async fn stand(
        &mut self,
        id: i64,
        run: &Run,
        before: &Standing,
        touched: &mut BTreeSet<(Tenant, GroupKey)>,
    ) -> Done<()> {
        let after = group_standing(run);
        let keys: BTreeSet<&GroupKey> = before.keys().chain(after.keys()).collect();
        for key in keys {
            if before.get(key) == after.get(key) {
                continue;
            }
            let membership = run.groups.iter().find(|one| one.group == *key);
            let query = match membership.filter(|_| after.contains_key(key)) {
                Some(membership) => query(
                    "INSERT INTO group_members (tenant, name, run, membership) \
                     VALUES ($1, $2, $3, $4) ON CONFLICT (tenant, name, run) DO UPDATE SET \
                     membership = excluded.membership",
                )
                .bind(run.tenant.as_str())
                .bind(key.as_str())
                .bind(id)
                .bind(json(membership)?),
                None => {
                    query("DELETE FROM group_members WHERE tenant = $1 AND name = $2 AND run = $3")
                        .bind(run.tenant.as_str())
                        .bind(key.as_str())
                        .bind(id)
                }
            };
            query.execute(&mut self.db).await?;
            touched.insert((run.tenant.clone(), key.clone()));
        }
        Ok(())
    }

    /// A group without members goes; one that comes again has a version that no reader has seen.
    async fn count_group(&mut self, tenant: &Tenant, group: &GroupKey) -> Done<()> {
        let version = self.db.next_serial().await?;
        query(
            "INSERT INTO group_versions (tenant, name, version) VALUES ($1, $2, $3) \
             ON CONFLICT (tenant, name) DO UPDATE SET version = excluded.version",
        )
        .bind(tenant.as_str())
        .bind(group.as_str())
        .bind(version)
        .execute(&mut self.db)
        .await?;
        query(
            "DELETE FROM group_versions WHERE tenant = $1 AND name = $2 AND NOT EXISTS \
             (SELECT 1 FROM group_members WHERE tenant = $1 AND name = $2)",
        )
        .bind(tenant.as_str())
        .bind(group.as_str())
        .execute(&mut self.db)
        .await?;
        Ok(())
    }

    async fn kept_status(&mut self, key: &StatusKey) -> Done<Option<(i64, StatusRecord)>> {
        let row = query(
            "SELECT id, body FROM statuses \
             WHERE tenant = $1 AND repo = $2 AND commit_id = $3 AND context = $4",
        )
        .bind(key.tenant.as_str())
        .bind(key.repo.id.as_str())
        .bind(key.commit.as_str())
        .bind(&*key.context)
        .fetch_optional(&mut self.db)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some((row.try_get(0)?, parse(row.try_get(1)?)?)))
    }

    async fn write_status(&mut self, id: i64, record: &StatusRecord) -> Done<()> {
        let key = &record.desire.key;
        let run = match &record.desire.subject {
            StatusSubject::Run { run } => Some(run.as_str()),
            StatusSubject::Note { .. } => None,
        };
        query(
            "INSERT INTO statuses (id, tenant, repo, commit_id, context, run, updated_at, body) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO UPDATE SET \
             run = excluded.run, updated_at = excluded.updated_at, body = excluded.body",
        )
        .bind(id)
        .bind(key.tenant.as_str())
        .bind(key.repo.id.as_str())
        .bind(key.commit.as_str())
        .bind(&*key.context)
        .bind(run)
        .bind(nanos(record.updated_at))
        .bind(json(record)?)
        .execute(&mut self.db)
        .await?;
        Ok(())
    }

    async fn desire(&mut self, desire: &StatusDesire) -> Done<()> {
        let updated_at = self.now;
        let Some((id, mut record)) = self.kept_status(&desire.key).await? else {
            let id = self.db.next_serial().await?;
            let desire = desire.clone();
            let record = StatusRecord { desire, shown: None, error: None, updated_at };
            return self.write_status(id, &record).await;
        };
        if desire.order >= record.desire.order && *desire != record.desire {
            record.desire = desire.clone();
            record.updated_at = updated_at;
            self.write_status(id, &record).await?;
        }
        Ok(())
    }

    async fn show(&mut self, reported: &StatusRecord) -> Done<()> {
        let mut reported = StatusRecord { updated_at: self.now, ..reported.clone() };
        let id = match self.kept_status(&reported.desire.key).await? {
            Some((id, kept)) => {
                reported.desire = kept.desire;
                id
            }
            None => self.db.next_serial().await?,
        };
        self.write_status(id, &reported).await
    }

    async fn notification_id(&mut self, one: &OutboxNotification) -> Done<Option<i64>> {
        query("SELECT notification FROM notification_keys WHERE tenant = $1 AND key = $2")
            .bind(one.tenant.as_str())
            .bind(one.key.as_str())
            .value(&mut self.db)
            .await
    }

    async fn notify(&mut self, one: &OutboxNotification) -> Done<()> {
        if self.notification_id(one).await?.is_some() {
            return Ok(());
        }
        let id = self.db.next_serial().await?;
        query("INSERT INTO notification_keys (tenant, key, notification) VALUES ($1, $2, $3)")
            .bind(one.tenant.as_str())
            .bind(one.key.as_str())
            .bind(id)
            .execute(&mut self.db)
            .await?;
        query(
            "INSERT INTO notifications (run, notifier, state, body, id, tenant) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(one.run.as_str())
        .bind(one.notifier.as_str())
        .bind(state_name(one.state))
        .bind(json(&OutboxNotification { id, ..one.clone() })?)
        .bind(id)
        .bind(one.tenant.as_str())
        .execute(&mut self.db)
        .await?;
        Ok(())
    }

    async fn delivered(&mut self, one: &OutboxNotification) -> Done<()> {
        let Some(id) = self.notification_id(one).await? else { return Ok(()) };
        query(
            "UPDATE notifications SET run = $1, notifier = $2, state = $3, body = $4 \
             WHERE id = $5 AND tenant = $6",
        )
        .bind(one.run.as_str())
        .bind(one.notifier.as_str())
        .bind(state_name(one.state))
        .bind(json(&OutboxNotification { id, ..one.clone() })?)
        .bind(id)
        .bind(one.tenant.as_str())
        .execute(&mut self.db)
        .await?;
        Ok(())
    }

    async fn approve(&mut self, approval: &Approval) -> Done<()> {
        query(
            "INSERT INTO approvals (tenant, repo, subject, head, body) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (tenant, repo, subject, head) DO UPDATE SET body = excluded.body",
        )
        .bind(approval.tenant.as_str())
        .bind(approval.repo.id.as_str())
        .bind(approval.subject.as_str())
        .bind(approval.head.as_str())
        .bind(json(approval)?)
        .execute(&mut self.db)
        .await?;
        Ok(())
    }

    async fn correct(&mut self, correction: &SubjectCorrection) -> Done<()> {
        if correction.from == correction.to {
            return Ok(());
        }
        let id: Option<i64> = query(
            "SELECT id FROM subjects \
             WHERE tenant = $1 AND repo = $2 AND subject = $3 AND state = $4",
        )
        .bind(correction.tenant.as_str())
        .bind(correction.repo.as_str())
        .bind(correction.subject.as_str())
        .bind(&correction.from)
        .value(&mut self.db)
        .await?;
        let Some(id) = id else { return Ok(()) };
        let times: Option<i64> = query(
            "SELECT times FROM arrivals WHERE subject = $1 AND state = $2 \
             ORDER BY sequence DESC LIMIT 1",
        )
        .bind(id)
        .bind(&correction.to)
        .value(&mut self.db)
        .await?;
        let sequence = self.db.next_sequence();
        query("UPDATE subjects SET state = $1, changed = $2 WHERE id = $3")
            .bind(&correction.to)
            .bind(sequence)
            .bind(id)
            .execute(&mut self.db)
            .await?;
        query(
            "INSERT INTO arrivals (subject, state, sequence, times, at, kind) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(id)
        .bind(&correction.to)
        .bind(sequence)
        .bind(times.unwrap_or(1).max(1))
        .bind(nanos(self.now))
        .bind(BASELINE)
        .execute(&mut self.db)
        .await?;
        Ok(())
    }
}

/// How many things a commit may number.
fn serials(effects: &Effects) -> usize {
    let changed = effects.changes.iter().map(|change| &change.run);
    let groups: usize = effects.runs.iter().chain(changed).map(|run| run.groups.len()).sum();
    usize::from(effects.decisions.is_some())
        + groups
        + effects.runs.len()
        + effects.statuses.len()
        + effects.reported.len()
        + effects.notifications.len()
        + effects.work.len()
}

/// The word for a state, as the column has it.
pub(crate) fn state_name(state: NotificationState) -> &'static str {
    match state {
        NotificationState::Pending => "pending",
        NotificationState::Delivered => "delivered",
        NotificationState::Dead => "dead",
    }
}
