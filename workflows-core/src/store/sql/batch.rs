//! What a ledger is asked to write, and the transaction in which it does.

use std::collections::{BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};

use super::{Done, Failure, Ledger};
use crate::{
    Error, Result, Tenant,
    event::Observation,
    store::{
        Admitted, ClaimRequest, Claimed, Committed, CursorMove, Effects, Lease, Prune, Pruned,
        Release, Stage, StoreLimits,
    },
};

/// What a ledger is asked to write.
#[derive(Debug)]
pub(crate) enum Ask {
    Admit { observations: Vec<Observation>, cursor: Option<CursorMove> },
    Claim(ClaimRequest),
    Commit { lease: Lease, effects: Box<Effects> },
    Extend { lease: Lease, by: SignedDuration },
    Release { lease: Lease, release: Release },
    Prune(Box<Prune>),
}

impl Ask {
    pub(crate) fn payload_bytes(&self) -> usize {
        match self {
            Self::Admit { observations, .. } => observations
                .iter()
                .filter_map(|one| one.payload.as_ref())
                .map(|payload| payload.body().len())
                .sum(),
            _ => 0,
        }
    }

    /// Whether losing it in a power failure is harmless: a lease that nobody remembers is over.
    pub(crate) fn may_be_lost(&self) -> bool {
        matches!(self, Self::Claim(_) | Self::Extend { .. } | Self::Release { .. })
    }

    pub(crate) fn operation(&self) -> &'static str {
        match self {
            Self::Admit { .. } => "admit observations",
            Self::Claim(_) => "claim work",
            Self::Commit { .. } => "commit",
            Self::Extend { .. } => "extend a lease",
            Self::Release { .. } => "release a claim",
            Self::Prune(_) => "prune the ledger",
        }
    }

    /// What is said when nobody is left to answer.
    pub(crate) fn unanswered(&self) -> Error {
        Error::transient(self.operation(), "the ledger gave no answer; was it closed?")
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Answer {
    Admitted(Vec<Admitted>),
    Claimed(Claimed),
    Committed(Committed),
    Extended(Lease),
    Pruned(Pruned),
    Done,
}

/// A question is answered in kind.
pub(crate) fn unexpected<T>() -> Result<T> {
    Err(Error::transient("write the ledger", "it gave the answer to another question"))
}

/// A transaction under way.
#[derive(Debug)]
pub(crate) struct Batch<C> {
    pub(crate) db: C,
    pub(crate) limits: StoreLimits,
    pub(crate) now: Timestamp,
    /// What `now` was in the transaction before.
    pub(crate) last_now: Timestamp,
    /// The tenant that was served last, by stage.
    pub(crate) served: HashMap<Stage, Tenant>,
    /// Stages that get work.
    pub(crate) stages: BTreeSet<Stage>,
}

impl<C: Ledger> Batch<C> {
    pub(crate) async fn execute(&mut self, asks: &[&Ask]) -> Done<Vec<Result<Answer>>> {
        self.end_leases_of_the_future().await?;
        let mut admissions = self.admit(asks).await?.into_iter();
        let mut answers = Vec::with_capacity(asks.len());
        for ask in asks {
            let answer = match ask {
                Ask::Admit { .. } => match admissions.next() {
                    Some(answer) => answer.map(Answer::Admitted).map_err(Failure::Refused),
                    None => Err(Failure::Refused(ask.unanswered())),
                },
                Ask::Claim(request) => self.claim(request).await.map(Answer::Claimed),
                Ask::Commit { lease, effects } => {
                    self.commit(lease, effects).await.map(Answer::Committed)
                }
                Ask::Extend { lease, by } => self.extend(lease, *by).await.map(Answer::Extended),
                Ask::Release { lease, release } => {
                    self.release(lease, release).await.map(|()| Answer::Done)
                }
                Ask::Prune(prune) => self.prune(prune).await.map(Answer::Pruned),
            };
            match answer {
                Ok(answer) => answers.push(Ok(answer)),
                Err(Failure::Refused(error)) => answers.push(Err(error)),
                Err(failure) => return Err(failure),
            }
        }
        Ok(answers)
    }
}
