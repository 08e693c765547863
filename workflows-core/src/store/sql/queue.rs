//! The work of the stages: what is due, what waits, and who holds it.

use std::collections::{HashMap, VecDeque};

use super::{
    Batch, Done, Ledger, Value, instant, nanos, query,
    rows::{json, parse, tenant_of},
};
use crate::{
    Error, Tenant,
    store::{Claim, ClaimRequest, Claimed, Lease, NewWork, Release, Stage, Work},
};
use jiff::{SignedDuration, Timestamp};

/// A clock that went back by more than this since a lease was given has made the lease void.
const BACKWARD_TOLERANCE: SignedDuration = SignedDuration::from_secs(1);

/// Rows that become due in one claim; more do in the next.
const PROMOTED: i64 = 1_000;

/// Work as it was put, or joined.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Put {
    pub(crate) id: i64,
    pub(crate) stage: Stage,
    /// Whether it can be claimed now.
    pub(crate) ready: bool,
}

/// Work that a lease is good for.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) tenant: Tenant,
    pub(crate) stage: Stage,
    joined: Option<i64>,
}

impl<C: Ledger> Batch<C> {
    /// When the clock went back, leases that were given in what is now the future end.
    pub(crate) async fn end_leases_of_the_future(&mut self) -> Done<()> {
        if self.last_now.duration_since(self.now) > BACKWARD_TOLERANCE {
            query("UPDATE work SET due = NULL WHERE leased_at > $1 AND due IS NOT NULL")
                .bind(nanos(self.now))
                .execute(&mut self.db)
                .await?;
        }
        Ok(())
    }

    pub(crate) async fn put(&mut self, new: &NewWork) -> Done<Put> {
        let Work { tenant, stage, key, detail } = &new.work;
        let later = new.not_before.filter(|at| *at > self.now).map(nanos);
        let now = nanos(self.now);
        let (key, detail) = (json(key)?, json(detail)?);
        let found = query(
            "SELECT id, due, since, leased_at, joined FROM work \
             WHERE stage = $1 AND tenant = $2 AND key = $3",
        )
        .push(C::FOR_UPDATE)
        .bind(*stage as i64)
        .bind(tenant.as_str())
        .bind(&key)
        .fetch_optional(&mut self.db)
        .await?;
        let Some(found) = found else {
            let id = self.db.next_serial().await?;
            query(
                "INSERT INTO work (id, stage, tenant, key, detail, due, since, attempts, token) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0)",
            )
            .bind(id)
            .bind(*stage as i64)
            .bind(tenant.as_str())
            .bind(key)
            .bind(detail)
            .bind(later)
            .bind(later.unwrap_or(now))
            .execute(&mut self.db)
            .await?;
            return Ok(Put { id, stage: *stage, ready: later.is_none() });
        };
        let id: i64 = found.try_get(0)?;
        let due: Option<i64> = found.try_get(1)?;
        if found.try_get::<Option<i64>>(3)?.is_some() {
            let joining = later.unwrap_or(i64::MIN);
            let joined = found.try_get::<Option<i64>>(4)?.map_or(joining, |at| at.min(joining));
            query("UPDATE work SET detail = $1, joined = $2 WHERE id = $3")
                .bind(detail)
                .bind(joined)
                .bind(id)
                .execute(&mut self.db)
                .await?;
            return Ok(Put { id, stage: *stage, ready: due.is_none() });
        }
        let due = due.and_then(|due| later.map(|at| at.min(due)));
        let since = found.try_get::<i64>(2)?.min(later.unwrap_or(now));
        query("UPDATE work SET detail = $1, due = $2, since = $3 WHERE id = $4")
            .bind(detail)
            .bind(due)
            .bind(since)
            .bind(id)
            .execute(&mut self.db)
            .await?;
        Ok(Put { id, stage: *stage, ready: due.is_none() })
    }

    pub(crate) async fn claim(&mut self, request: &ClaimRequest) -> Done<Claimed> {
        let stage = request.stage as i64;
        query(
            "UPDATE work SET due = NULL WHERE id IN (SELECT id FROM work \
             WHERE stage = $1 AND due IS NOT NULL AND due <= $2 ORDER BY due LIMIT $3",
        )
        .push(C::SKIP_LOCKED)
        .push(")")
        .bind(stage)
        .bind(nanos(self.now))
        .bind(PROMOTED)
        .execute(&mut self.db)
        .await?;
        let ids = match &request.only {
            Some((tenant, key)) => {
                let id: Option<i64> = query(
                    "SELECT id FROM work WHERE stage = $1 AND tenant = $2 AND key = $3 \
                     AND (leased_at IS NULL OR due IS NULL)",
                )
                .push(C::SKIP_LOCKED)
                .bind(stage)
                .bind(tenant.as_str())
                .bind(json(key)?)
                .value(&mut self.db)
                .await?;
                id.into_iter().take(request.limit as usize).collect()
            }
            None => self.in_turn(request.stage, request.limit as usize).await?,
        };
        let claims = self.lease(&ids, request.lease).await?;
        let next_due: Option<i64> =
            query("SELECT due FROM work WHERE stage = $1 AND due IS NOT NULL ORDER BY due LIMIT 1")
                .bind(stage)
                .value(&mut self.db)
                .await?;
        Ok(Claimed { claims, next_due: next_due.map(instant) })
    }

    /// Ids of work that can be claimed: one of each tenant in turn, from the one after the tenant
    /// that was served last; oldest first within one.
    async fn in_turn(&mut self, stage: Stage, limit: usize) -> Done<Vec<i64>> {
        struct Line {
            tenant: String,
            ids: VecDeque<i64>,
            last: (i64, i64),
            more: bool,
        }
        let served =
            self.served.get(&stage).map(|tenant| tenant.as_str().to_owned()).unwrap_or_default();
        let mut tenants = self.tenants_with_work(stage, &served, limit).await?;
        if tenants.len() < limit && !served.is_empty() {
            let first = self.tenants_with_work(stage, "", limit - tenants.len()).await?;
            tenants.extend(first.into_iter().filter(|tenant| *tenant <= served));
        }
        let share = limit.div_ceil(tenants.len().max(1));
        let mut lines: Vec<Line> = tenants
            .into_iter()
            .map(|tenant| Line {
                tenant,
                ids: VecDeque::new(),
                last: (i64::MIN, i64::MIN),
                more: true,
            })
            .collect();
        let mut ids = Vec::with_capacity(limit);
        while ids.len() < limit && !lines.is_empty() {
            for line in &mut lines {
                if ids.len() == limit {
                    break;
                }
                if line.ids.is_empty() && line.more {
                    let rows = query(
                        "SELECT since, id FROM work WHERE stage = $1 AND tenant = $2 AND due IS NULL \
                         AND (since, id) > ($3, $4) ORDER BY since, id LIMIT $5",
                    )
                    .push(C::SKIP_LOCKED)
                    .bind(stage as i64)
                    .bind(&line.tenant)
                    .bind(line.last.0)
                    .bind(line.last.1)
                    .bind(share as i64)
                    .fetch_all(&mut self.db)
                    .await?;
                    line.more = rows.len() == share;
                    for row in rows {
                        line.last = (row.try_get(0)?, row.try_get(1)?);
                        line.ids.push_back(line.last.1);
                    }
                }
                if let Some(id) = line.ids.pop_front() {
                    ids.push(id);
                    self.served.insert(stage, tenant_of(&line.tenant)?);
                }
            }
            lines.retain(|line| line.more || !line.ids.is_empty());
        }
        Ok(ids)
    }

    /// Names of tenants behind `after` with work that can be claimed: one step in an index for each,
    /// however much work it has.
    async fn tenants_with_work(
        &mut self,
        stage: Stage,
        after: &str,
        limit: usize,
    ) -> Done<Vec<String>> {
        query(TENANTS_WITH_WORK)
            .bind(stage as i64)
            .bind(after)
            .bind(limit as i64)
            .values(&mut self.db)
            .await
    }

    /// Leases work, in the order of its ids here.
    pub(crate) async fn lease(&mut self, ids: &[i64], lease: SignedDuration) -> Done<Vec<Claim>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let until = after(self.now, lease);
        // A server that comes back without its last leases must not give their tokens again: so a
        // token is a time.
        let rows = query(format!(
            "UPDATE work SET due = $1, attempts = attempts + 1, leased_at = $2, joined = NULL, \
             token = CASE WHEN token < $2 THEN $2 ELSE token + 1 END{} WHERE {} \
             RETURNING id, stage, tenant, key, detail, attempts, since, error, token",
            C::LEASED,
            C::among("id", 3),
        ))
        .bind(nanos(until))
        .bind(nanos(self.now))
        .bind(Value::Ints(ids.to_vec()))
        .fetch_all(&mut self.db)
        .await?;
        let mut claims = HashMap::with_capacity(rows.len());
        for row in rows {
            let id: i64 = row.try_get(0)?;
            let work = Work {
                stage: stage_of(row.try_get(1)?)?,
                tenant: tenant_of(row.try_get(2)?)?,
                key: parse(row.try_get(3)?)?,
                detail: parse(row.try_get(4)?)?,
            };
            let claim = Claim {
                work,
                lease: Lease { id, token: row.try_get(8)?, until },
                attempts: row.try_get(5)?,
                since: instant(row.try_get(6)?),
                last_error: row.try_get(7)?,
            };
            claims.insert(id, claim);
        }
        Ok(ids.iter().filter_map(|id| claims.remove(id)).collect())
    }

    /// Refuses a lease that was lost.
    pub(crate) async fn held(&mut self, operation: &'static str, lease: &Lease) -> Done<Held> {
        let row = query(
            "SELECT tenant, stage, joined FROM work \
             WHERE id = $1 AND token = $2 AND leased_at IS NOT NULL",
        )
        .push(C::FOR_UPDATE)
        .bind(lease.id)
        .bind(lease.token)
        .fetch_optional(&mut self.db)
        .await?;
        let Some(row) = row else {
            return Err(Error::conflict(operation, "the lease was lost; claim the work again")
                .with("work", lease.id)
                .with("token", lease.token)
                .into());
        };
        Ok(Held {
            tenant: tenant_of(row.try_get(0)?)?,
            stage: stage_of(row.try_get(1)?)?,
            joined: row.try_get(2)?,
        })
    }

    pub(crate) async fn extend(&mut self, lease: &Lease, by: SignedDuration) -> Done<Lease> {
        self.held("extend a lease", lease).await?;
        let until = after(self.now, by);
        query("UPDATE work SET due = $1, leased_at = $2 WHERE id = $3")
            .bind(nanos(until))
            .bind(nanos(self.now))
            .bind(lease.id)
            .execute(&mut self.db)
            .await?;
        Ok(Lease { until, ..lease.clone() })
    }

    pub(crate) async fn release(&mut self, lease: &Lease, release: &Release) -> Done<()> {
        let held = self.held("release a claim", lease).await?;
        let due = release.not_before.map_or(i64::MIN, nanos);
        let due = held.joined.map_or(due, |joined| joined.min(due));
        query(
            "UPDATE work SET due = $1, leased_at = NULL, joined = NULL, \
             attempts = CASE WHEN $2 IS NULL THEN attempts - 1 ELSE attempts END, \
             error = COALESCE($2, error) WHERE id = $3",
        )
        .bind(Some(due).filter(|at| *at > nanos(self.now)))
        .bind(&release.error)
        .bind(lease.id)
        .execute(&mut self.db)
        .await?;
        self.stages.insert(held.stage);
        Ok(())
    }

    /// Ends a claim that came to something. What joined it is read again, for the claim's own commit
    /// may have.
    pub(crate) async fn finish(&mut self, lease: &Lease, again: Option<Timestamp>) -> Done<()> {
        let joined = self.held("commit", lease).await?.joined;
        let due = match (again.map(nanos), joined) {
            (Some(again), Some(joined)) => again.min(joined),
            (Some(due), None) | (None, Some(due)) => due,
            (None, None) => {
                query("DELETE FROM work WHERE id = $1")
                    .bind(lease.id)
                    .execute(&mut self.db)
                    .await?;
                return Ok(());
            }
        };
        let now = nanos(self.now);
        query(
            "UPDATE work SET due = $1, since = $2, attempts = 0, leased_at = NULL, joined = NULL, \
             error = NULL WHERE id = $3",
        )
        .bind(Some(due).filter(|at| *at > now))
        .bind(due.max(now))
        .bind(lease.id)
        .execute(&mut self.db)
        .await?;
        Ok(())
    }
}

pub(crate) const TENANTS_WITH_WORK: &str = "\
    WITH RECURSIVE found (tenant) AS ( \
      SELECT (SELECT w.tenant FROM work w WHERE w.stage = $1 AND w.due IS NULL \
              AND w.tenant > $2 ORDER BY w.tenant LIMIT 1) \
      UNION ALL \
      SELECT (SELECT w.tenant FROM work w WHERE w.stage = $1 AND w.due IS NULL \
              AND w.tenant > found.tenant ORDER BY w.tenant LIMIT 1) \
      FROM found WHERE found.tenant IS NOT NULL) \
    SELECT tenant FROM found WHERE tenant IS NOT NULL LIMIT $3";

fn stage_of(column: i64) -> Done<Stage> {
    let stage = usize::try_from(column).ok().and_then(|index| Stage::ALL.get(index));
    stage.copied().ok_or_else(|| {
        sqlx::Error::Decode(format!("{column} is no stage of this program").into()).into()
    })
}

fn after(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.checked_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}
