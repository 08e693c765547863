//! The work of the stages: what is due, what waits, and who holds it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
};

use jiff::{SignedDuration, Timestamp};

use crate::{
    Error, Result, Tenant,
    store::{Backlog, Claim, ClaimRequest, Claimed, Lease, NewWork, Release, Stage, Work, WorkKey},
};

/// A clock that went back by more than this since a lease was given has made the lease void.
const BACKWARD_TOLERANCE: SignedDuration = SignedDuration::from_secs(1);

#[derive(Debug)]
struct Row {
    work: Work,
    /// `None`: it is due. Else when it will be: its own time, or the end of its lease.
    due: Option<Timestamp>,
    since: Timestamp,
    attempts: u32,
    token: i64,
    /// When the lease was given; `None` when nobody holds it.
    leased_at: Option<Timestamp>,
    /// Since the lease was given other work joined, due then.
    joined: Option<Timestamp>,
    error: Option<String>,
}

#[derive(Debug)]
pub(super) struct Queue {
    rows: HashMap<i64, Row>,
    ids: HashMap<(Tenant, Stage, WorkKey), i64>,
    ready: BTreeMap<(Stage, Tenant), BTreeSet<(Timestamp, i64)>>,
    waiting: BTreeSet<(Stage, Timestamp, i64)>,
    served: HashMap<Stage, Tenant>,
    last_now: Timestamp,
    serial: i64,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            rows: HashMap::new(),
            ids: HashMap::new(),
            ready: BTreeMap::new(),
            waiting: BTreeSet::new(),
            served: HashMap::new(),
            last_now: Timestamp::MIN,
            serial: 0,
        }
    }

    /// Looks at the clock: when it went back, leases that were given in what is now the future end.
    pub(super) fn observe(&mut self, now: Timestamp) {
        if self.last_now.duration_since(now) > BACKWARD_TOLERANCE {
            let void: Vec<i64> = self
                .rows
                .iter()
                .filter(|(_, row)| row.leased_at.is_some_and(|at| at > now) && row.due.is_some())
                .map(|(id, _)| *id)
                .collect();
            for id in void {
                self.update(id, |row| row.due = None);
            }
        }
        self.last_now = now;
    }

    pub(super) fn put(&mut self, new: NewWork, now: Timestamp) -> i64 {
        let key = (new.work.tenant.clone(), new.work.stage, new.work.key.clone());
        let later = new.not_before.filter(|at| *at > now);
        if let Some(&id) = self.ids.get(&key) {
            self.update(id, |row| {
                row.work.detail = new.work.detail;
                if row.leased_at.is_some() {
                    let joining = later.unwrap_or(Timestamp::MIN);
                    row.joined = Some(row.joined.map_or(joining, |at| at.min(joining)));
                } else {
                    row.due = row.due.and_then(|due| later.map(|at| at.min(due)));
                    row.since = row.since.min(later.unwrap_or(now));
                }
            });
            return id;
        }
        let id = self.next_serial();
        self.ids.insert(key, id);
        let row = Row {
            work: new.work,
            due: later,
            since: later.unwrap_or(now),
            attempts: 0,
            token: 0,
            leased_at: None,
            joined: None,
            error: None,
        };
        self.rows.insert(id, row);
        self.index(id);
        id
    }

    pub(super) fn claim(&mut self, request: &ClaimRequest, now: Timestamp) -> Claimed {
        self.promote(request.stage, now);
        let mut claims = Vec::new();
        if let Some((tenant, key)) = &request.only {
            let id = self.ids.get(&(tenant.clone(), request.stage, key.clone())).copied();
            if request.limit > 0
                && let Some(id) = id
            {
                claims.extend(self.claim_one(id, request.lease, now));
            }
        } else {
            while claims.len() < request.limit as usize {
                let Some(id) = self.next_ready(request.stage) else { break };
                claims.extend(self.claim_one(id, request.lease, now));
            }
        }
        let next_due = self
            .waiting
            .range((request.stage, Timestamp::MIN, i64::MIN)..)
            .next()
            .filter(|(stage, ..)| *stage == request.stage)
            .map(|(_, due, _)| *due);
        Claimed { claims, next_due }
    }

    /// Leases a piece of work, due or not, unless somebody holds it.
    pub(super) fn claim_one(
        &mut self,
        id: i64,
        lease: SignedDuration,
        now: Timestamp,
    ) -> Option<Claim> {
        let token = self.next_serial();
        let until = after(now, lease);
        let mut claim = None;
        self.update(id, |row| {
            if row.leased_at.is_some() && row.due.is_some() {
                return;
            }
            row.due = Some(until);
            row.attempts = row.attempts.saturating_add(1);
            row.token = token;
            row.leased_at = Some(now);
            row.joined = None;
            claim = Some(Claim {
                work: row.work.clone(),
                lease: Lease { id, token, until },
                attempts: row.attempts,
                since: row.since,
                last_error: row.error.clone(),
            });
        });
        claim
    }

    /// Refuses a lease that was lost.
    pub(super) fn check(&self, operation: &'static str, lease: &Lease) -> Result<&Work> {
        match self.rows.get(&lease.id) {
            Some(row) if row.token == lease.token && row.leased_at.is_some() => Ok(&row.work),
            _ => Err(Error::conflict(operation, "the lease was lost; claim the work again")
                .with("work", lease.id)
                .with("token", lease.token)),
        }
    }

    pub(super) fn extend(&mut self, lease: &Lease, by: SignedDuration, now: Timestamp) -> Lease {
        let until = after(now, by);
        self.update(lease.id, |row| {
            row.due = Some(until);
            row.leased_at = Some(now);
        });
        Lease { until, ..lease.clone() }
    }

    /// Ends a claim that came to something.
    pub(super) fn finish(&mut self, id: i64, again: Option<Timestamp>, now: Timestamp) {
        let Some(row) = self.rows.get(&id) else { return };
        let due = match (again, row.joined) {
            (Some(again), Some(joined)) => again.min(joined),
            (Some(due), None) | (None, Some(due)) => due,
            (None, None) => {
                self.unindex(id);
                if let Some(Row { work, .. }) = self.rows.remove(&id) {
                    self.ids.remove(&(work.tenant, work.stage, work.key));
                }
                return;
            }
        };
        self.update(id, |row| {
            row.due = Some(due).filter(|at| *at > now);
            row.since = due.max(now);
            row.attempts = 0;
            row.leased_at = None;
            row.joined = None;
            row.error = None;
        });
    }

    pub(super) fn release(&mut self, id: i64, release: Release, now: Timestamp) {
        self.update(id, |row| {
            let due = release.not_before.unwrap_or(Timestamp::MIN);
            let due = row.joined.map_or(due, |joined| joined.min(due));
            row.due = Some(due).filter(|at| *at > now);
            row.leased_at = None;
            row.joined = None;
            match release.error {
                Some(error) => row.error = Some(error),
                None => row.attempts = row.attempts.saturating_sub(1),
            }
        });
    }

    pub(super) fn is_ready(&self, id: i64) -> bool {
        self.rows.get(&id).is_some_and(|row| row.due.is_none())
    }

    pub(super) fn stage(&self, id: i64) -> Option<Stage> {
        self.rows.get(&id).map(|row| row.work.stage)
    }

    pub(super) fn backlog(&mut self, stage: Stage, now: Timestamp) -> Backlog {
        self.promote(stage, now);
        let ready = || self.ready.iter().filter(|((of, _), _)| *of == stage).map(|(_, rows)| rows);
        let due = ready().map(|rows| rows.len() as u64).sum();
        let waiting = self
            .waiting
            .range((stage, Timestamp::MIN, i64::MIN)..=(stage, Timestamp::MAX, i64::MAX))
            .count() as u64;
        let oldest_due = ready().filter_map(|rows| rows.first()).map(|(since, _)| *since).min();
        Backlog { stage, waiting: waiting + due, due, oldest_due }
    }

    pub(super) fn has(&self, tenant: &Tenant, keep: impl Fn(&WorkKey) -> bool) -> bool {
        self.ids.keys().any(|(of, _, key)| of == tenant && keep(key))
    }

    fn promote(&mut self, stage: Stage, now: Timestamp) {
        while let Some(&(_, due, id)) =
            self.waiting.range((stage, Timestamp::MIN, i64::MIN)..).next()
        {
            if self.stage(id) != Some(stage) || due > now {
                break;
            }
            self.update(id, |row| row.due = None);
        }
    }

    /// The oldest work of the tenant whose turn it is.
    fn next_ready(&mut self, stage: Stage) -> Option<i64> {
        let last = self.served.get(&stage).cloned();
        let of_stage = |((of, _), _): &(&(Stage, Tenant), _)| *of == stage;
        let after_last = last.and_then(|last| {
            self.ready
                .range((Bound::Excluded((stage, last)), Bound::Unbounded))
                .next()
                .filter(of_stage)
        });
        let (key, rows) =
            after_last.or_else(|| self.ready.iter().find(|((of, _), _)| *of == stage))?;
        let id = rows.first()?.1;
        self.served.insert(stage, key.1.clone());
        Some(id)
    }

    fn next_serial(&mut self) -> i64 {
        self.serial += 1;
        self.serial
    }

    fn update(&mut self, id: i64, change: impl FnOnce(&mut Row)) {
        self.unindex(id);
        if let Some(row) = self.rows.get_mut(&id) {
            change(row);
        }
        self.index(id);
    }

    fn index(&mut self, id: i64) {
        let Some(row) = self.rows.get(&id) else { return };
        match row.due {
            Some(due) => {
                self.waiting.insert((row.work.stage, due, id));
            }
            None => {
                let key = (row.work.stage, row.work.tenant.clone());
                self.ready.entry(key).or_default().insert((row.since, id));
            }
        }
    }

    fn unindex(&mut self, id: i64) {
        let Some(row) = self.rows.get(&id) else { return };
        match row.due {
            Some(due) => {
                self.waiting.remove(&(row.work.stage, due, id));
            }
            None => {
                let key = (row.work.stage, row.work.tenant.clone());
                if let Some(rows) = self.ready.get_mut(&key) {
                    rows.remove(&(row.since, id));
                    if rows.is_empty() {
                        self.ready.remove(&key);
                    }
                }
            }
        }
    }
}

fn after(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.checked_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}
