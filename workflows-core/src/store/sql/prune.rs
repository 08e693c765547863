//! Removing what retention does not keep.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{
    Batch, Done, Ledger, Value, locks, nanos, query,
    rows::{json, parse, tenant_of},
};
use crate::{
    RunKey,
    store::{
        DELIVERY_MEMORY, DecisionBatch, Prune, Pruned, RunsToKeep, Stage, StatusKey, StatusRecord,
        WorkKey,
    },
};

impl<C: Ledger> Batch<C> {
    pub(crate) async fn prune(&mut self, prune: &Prune) -> Done<Pruned> {
        let batch = i64::from(prune.batch.max(1));
        // What takes a question for each workflow is asked before intake has to wait.
        let old = self.old_runs(prune, batch).await?;
        self.db.begin_intake().await?;
        let runs = self.remove_runs(old, batch).await?;
        let events = self.prune_events(prune, batch).await?;
        let observations = self.prune_observations(prune, batch).await?;
        let payloads = self.prune_payloads(prune, batch).await?;
        let statuses = self.prune_statuses(prune, batch).await?;
        let deliveries = self.prune_deliveries(prune, batch).await?;
        let full = batch.unsigned_abs();
        Ok(Pruned {
            payloads,
            events,
            runs,
            more: [runs, events, observations, payloads, statuses, deliveries].contains(&full),
        })
    }

    async fn ids(&mut self, sql: &'static str, before: i64, batch: i64) -> Done<Vec<i64>> {
        query(sql).bind(before).bind(batch).values(&mut self.db).await
    }

    async fn delete(&mut self, table: &str, id: &str, ids: &[i64]) -> Done<()> {
        if !ids.is_empty() {
            query(format!("DELETE FROM {table} WHERE {}", C::among(id, 1)))
                .bind(Value::Ints(ids.to_vec()))
                .execute(&mut self.db)
                .await?;
        }
        Ok(())
    }

    /// Keeps commits away from what is looked at, and perhaps removed.
    async fn keep(&mut self, thing: String) -> Done<()> {
        if C::SHARED { self.db.lock(BTreeSet::from([thing])).await } else { Ok(()) }
    }

    async fn old_runs(&mut self, prune: &Prune, batch: i64) -> Done<Vec<i64>> {
        let mut ids = Vec::new();
        for keep in &prune.runs_per_workflow {
            ids.extend(self.beyond_its_number(keep, batch).await?);
            ids.extend(self.beyond_its_age(keep, batch).await?);
        }
        let old = self
            .ids(
                "SELECT r.id FROM runs r WHERE r.terminal = 1 AND r.finished_at < $1 \
                 AND NOT EXISTS (SELECT 1 FROM notifications n WHERE n.tenant = r.tenant \
                 AND n.run = r.key AND n.state = 'pending') ORDER BY r.finished_at LIMIT $2",
                nanos(prune.runs_before),
                batch,
            )
            .await?;
        ids.extend(old);
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    async fn remove_runs(&mut self, ids: Vec<i64>, batch: i64) -> Done<u64> {
        let mut removed = 0;
        for id in ids {
            if removed == batch.unsigned_abs() {
                break;
            }
            removed += u64::from(self.remove_run(id).await?);
        }
        Ok(removed)
    }

    /// The oldest runs of a workflow that keeps so many.
    async fn beyond_its_number(&mut self, keep: &RunsToKeep, batch: i64) -> Done<Vec<i64>> {
        let Some(runs) = keep.runs else { return Ok(Vec::new()) };
        query(
            "SELECT r.id FROM runs r WHERE r.tenant = $1 AND r.workflow = $2 \
             AND r.workflow_repo IS NOT DISTINCT FROM $3 AND r.terminal = 1 \
             AND (r.created_at, r.id) <= (SELECT n.created_at, n.id FROM runs n \
             WHERE n.tenant = $1 AND n.workflow = $2 \
             AND n.workflow_repo IS NOT DISTINCT FROM $3 AND n.terminal = 1 \
             ORDER BY n.created_at DESC, n.id DESC LIMIT 1 OFFSET $4) \
             AND NOT EXISTS (SELECT 1 FROM notifications n WHERE n.tenant = r.tenant \
             AND n.run = r.key AND n.state = 'pending') \
             ORDER BY r.created_at, r.id LIMIT $5",
        )
        .bind(keep.tenant.as_str())
        .bind(&*keep.workflow.name)
        .bind(keep.workflow.repo.as_ref().map(|repo| repo.as_str()))
        .bind(runs)
        .bind(batch)
        .values(&mut self.db)
        .await
    }

    /// The oldest runs of a workflow that keeps them for so long. One that ended before an instant was
    /// made before it, too, which an index knows.
    async fn beyond_its_age(&mut self, keep: &RunsToKeep, batch: i64) -> Done<Vec<i64>> {
        let Some(since) = keep.ended_since else { return Ok(Vec::new()) };
        query(
            "SELECT r.id FROM runs r WHERE r.tenant = $1 AND r.workflow = $2 \
             AND r.workflow_repo IS NOT DISTINCT FROM $3 AND r.terminal = 1 \
             AND r.created_at < $4 AND r.finished_at < $4 \
             AND NOT EXISTS (SELECT 1 FROM notifications n WHERE n.tenant = r.tenant \
             AND n.run = r.key AND n.state = 'pending') ORDER BY r.created_at LIMIT $5",
        )
        .bind(keep.tenant.as_str())
        .bind(&*keep.workflow.name)
        .bind(keep.workflow.repo.as_ref().map(|repo| repo.as_str()))
        .bind(nanos(since))
        .bind(batch)
        .values(&mut self.db)
        .await
    }

    /// Removes a run, unless something about it is still to be done.
    async fn remove_run(&mut self, id: i64) -> Done<bool> {
        let row = query("SELECT tenant, key FROM runs WHERE id = $1")
            .bind(id)
            .fetch_optional(&mut self.db)
            .await?;
        // Another replica was quicker.
        let Some(row) = row else { return Ok(false) };
        let (tenant, key): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        self.keep(locks::run(&tenant_of(&tenant)?, &key.clone().into())).await?;
        let work = json(&WorkKey::run(key.clone().into()))?;
        let pending: bool = query(
            "SELECT EXISTS (SELECT 1 FROM notifications WHERE tenant = $1 AND run = $2 \
             AND state = 'pending') OR EXISTS (SELECT 1 FROM work WHERE stage IN ($3, $4, $5) \
             AND tenant = $1 AND key = $6)",
        )
        .bind(&tenant)
        .bind(&key)
        .bind(Stage::Schedule as i64)
        .bind(Stage::Dispatch as i64)
        .bind(Stage::Observe as i64)
        .bind(work)
        .answer(&mut self.db)
        .await?;
        if pending {
            return Ok(false);
        }
        query("DELETE FROM notifications WHERE tenant = $1 AND run = $2")
            .bind(&tenant)
            .bind(&key)
            .execute(&mut self.db)
            .await?;
        query("DELETE FROM runs WHERE id = $1").bind(id).execute(&mut self.db).await?;
        Ok(true)
    }

    async fn prune_events(&mut self, prune: &Prune, batch: i64) -> Done<u64> {
        let rows = query(
            "SELECT e.sequence, e.tenant, e.key FROM events e WHERE e.received_at < $1 \
             AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.tenant = e.tenant AND r.event = e.key) \
             ORDER BY e.received_at, e.sequence LIMIT $2",
        )
        .bind(nanos(prune.events_before))
        .bind(batch)
        .fetch_all(&mut self.db)
        .await?;
        let mut ids = Vec::with_capacity(rows.len());
        for row in rows {
            let (tenant, key): (String, String) = (row.try_get(1)?, row.try_get(2)?);
            // The JSON of the key of any attempt at the event begins so.
            let begins = format!("{{\"about\":\"event\",\"event\":{},", json(&key)?);
            self.keep(locks::event(&tenant_of(&tenant)?, &key.clone().into())).await?;
            let needed: bool = query(
                "SELECT EXISTS (SELECT 1 FROM work \
                 WHERE stage = $1 AND tenant = $2 AND key >= $3 AND key < $4) \
                 OR EXISTS (SELECT 1 FROM runs WHERE tenant = $2 AND event = $5)",
            )
            .bind(Stage::Match as i64)
            .bind(&tenant)
            .bind(&begins)
            .bind(format!("{begins}{}", char::MAX))
            .bind(&key)
            .answer(&mut self.db)
            .await?;
            if needed || !self.remove_notifications_without_runs(&tenant, &key).await? {
                continue;
            }
            ids.push(row.try_get(0)?);
            self.remove_decisions(&tenant, &key).await?;
        }
        self.remove_payloads(&ids).await?;
        self.delete("events", "sequence", &ids).await?;
        Ok(ids.len() as u64)
    }

    /// Removes what people were told about runs that an event did not come to; false when something
    /// of it is still to be delivered.
    async fn remove_notifications_without_runs(&mut self, tenant: &str, event: &str) -> Done<bool> {
        let bodies: Vec<String> =
            query("SELECT body FROM decisions WHERE tenant = $1 AND event = $2")
                .bind(tenant)
                .bind(event)
                .values(&mut self.db)
                .await?;
        let mut runs: BTreeSet<RunKey> = BTreeSet::new();
        for body in bodies {
            runs.extend(parse::<DecisionBatch>(&body)?.runs_that_were_not_made());
        }
        for run in &runs {
            self.keep(locks::run(&tenant_of(tenant)?, run)).await?;
            let pending: bool = query(
                "SELECT EXISTS (SELECT 1 FROM notifications WHERE tenant = $1 AND run = $2 \
                 AND state = 'pending')",
            )
            .bind(tenant)
            .bind(run.as_str())
            .answer(&mut self.db)
            .await?;
            if pending {
                return Ok(false);
            }
        }
        for run in &runs {
            query("DELETE FROM notifications WHERE tenant = $1 AND run = $2")
                .bind(tenant)
                .bind(run.as_str())
                .execute(&mut self.db)
                .await?;
        }
        Ok(true)
    }

    /// Removes the decisions about an event, and the sets of triggers that nothing names any more.
    async fn remove_decisions(&mut self, tenant: &str, event: &str) -> Done<()> {
        let sets: Vec<String> = query(
            "DELETE FROM decision_sets WHERE decision IN \
             (SELECT id FROM decisions WHERE tenant = $1 AND event = $2) RETURNING digest",
        )
        .bind(tenant)
        .bind(event)
        .values(&mut self.db)
        .await?;
        query("DELETE FROM decisions WHERE tenant = $1 AND event = $2")
            .bind(tenant)
            .bind(event)
            .execute(&mut self.db)
            .await?;
        if !sets.is_empty() {
            self.db.keep_trigger_sets().await?;
        }
        for digest in sets {
            query(
                "DELETE FROM trigger_sets WHERE tenant = $1 AND digest = $2 AND NOT EXISTS \
                 (SELECT 1 FROM decision_sets WHERE tenant = $1 AND digest = $2)",
            )
            .bind(tenant)
            .bind(digest)
            .execute(&mut self.db)
            .await?;
        }
        Ok(())
    }

    async fn prune_observations(&mut self, prune: &Prune, batch: i64) -> Done<u64> {
        let ids = self
            .ids(
                "SELECT o.id FROM observations o WHERE o.received_at < $1 AND (o.event IS NULL \
                 OR NOT EXISTS (SELECT 1 FROM events e WHERE e.key = o.event)) \
                 ORDER BY o.received_at, o.id LIMIT $2",
                nanos(prune.events_before),
                batch,
            )
            .await?;
        self.delete("observations", "id", &ids).await?;
        Ok(ids.len() as u64)
    }

    async fn prune_payloads(&mut self, prune: &Prune, batch: i64) -> Done<u64> {
        let rows = query("SELECT id, received_at FROM payloads ORDER BY id LIMIT $1")
            .bind(batch)
            .fetch_all(&mut self.db)
            .await?;
        let before = nanos(prune.payloads_before);
        let mut ids = Vec::new();
        for row in rows {
            if row.try_get::<i64>(1)? < before {
                ids.push(row.try_get(0)?);
            }
        }
        self.remove_payloads(&ids).await
    }

    async fn remove_payloads(&mut self, ids: &[i64]) -> Done<u64> {
        if ids.is_empty() {
            return Ok(0);
        }
        let removed = query(format!(
            "DELETE FROM payloads WHERE {} RETURNING tenant, size",
            C::among("id", 1)
        ))
        .bind(Value::Ints(ids.to_vec()))
        .fetch_all(&mut self.db)
        .await?;
        for row in &removed {
            let tenant = tenant_of(row.try_get(0)?)?;
            let size = row.try_get::<i64>(1)?.unsigned_abs();
            let stored = self.db.stored_bytes(&tenant).await?.saturating_sub(size);
            self.db.set_stored_bytes(&tenant, stored).await?;
        }
        Ok(removed.len() as u64)
    }

    async fn prune_statuses(&mut self, prune: &Prune, batch: i64) -> Done<u64> {
        let rows = query(
            "SELECT s.id, s.body FROM statuses s WHERE s.updated_at < $1 AND (s.run IS NULL \
             OR NOT EXISTS (SELECT 1 FROM run_keys k JOIN runs r ON r.id = k.run \
             WHERE k.tenant = s.tenant AND k.key = s.run)) ORDER BY s.updated_at LIMIT $2",
        )
        .bind(nanos(prune.events_before))
        .bind(batch)
        .fetch_all(&mut self.db)
        .await?;
        let mut ids = Vec::new();
        for row in rows {
            let record: StatusRecord = parse(row.try_get(1)?)?;
            let id = row.try_get(0)?;
            if self.is_old_and_quiet(id, &record.desire.key, prune.events_before).await? {
                ids.push(id);
            }
        }
        self.delete("statuses", "id", &ids).await?;
        Ok(ids.len() as u64)
    }

    async fn is_old_and_quiet(
        &mut self,
        id: i64,
        status: &StatusKey,
        before: Timestamp,
    ) -> Done<bool> {
        self.keep(locks::status(status)).await?;
        query(
            "SELECT EXISTS (SELECT 1 FROM statuses WHERE id = $4 AND updated_at < $5) AND NOT \
             EXISTS (SELECT 1 FROM work WHERE stage = $1 AND tenant = $2 AND key = $3)",
        )
        .bind(Stage::Report as i64)
        .bind(status.tenant.as_str())
        .bind(json(&WorkKey::Status { status: status.clone() })?)
        .bind(id)
        .bind(nanos(before))
        .answer(&mut self.db)
        .await
    }

    async fn prune_deliveries(&mut self, prune: &Prune, batch: i64) -> Done<u64> {
        let horizon = self.now.checked_sub(DELIVERY_MEMORY).unwrap_or(Timestamp::MIN);
        let horizon = nanos(horizon.min(prune.events_before));
        // Ids grow with time, so the oldest are looked at and no index of times is kept.
        let rows = query("SELECT id, at FROM deliveries ORDER BY id LIMIT $1")
            .bind(batch)
            .fetch_all(&mut self.db)
            .await?;
        let mut ids: Vec<i64> = Vec::new();
        for row in rows {
            if row.try_get::<i64>(1)? < horizon {
                ids.push(row.try_get(0)?);
            }
        }
        self.delete("deliveries", "id", &ids).await?;
        Ok(ids.len() as u64)
    }
}
