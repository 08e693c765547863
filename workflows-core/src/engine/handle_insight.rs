//! What a program asks an engine about decisions: why, and what if.

use std::sync::Arc;

use super::{
    EngineHandle,
    explain::{self, Explanation},
    simulate::{self, Replayed, Simulation, SimulationRequest},
};
use crate::{
    CommitId, ConnectionName, EventKey, RepoId, Result, Tenant, store::EventQuery,
    workflow::LoadedWorkflow,
};

impl EngineHandle {
    /// Why something ran for an event, or did not.
    ///
    /// # Errors
    ///
    /// `NotFound` when the ledger has no such event (any more), `Transient`.
    pub async fn explain_event(&self, tenant: &Tenant, event: &EventKey) -> Result<Explanation> {
        explain::event(&self.core, tenant, event).await
    }

    /// Why something ran for a commit of a repository, or did not.
    ///
    /// # Errors
    ///
    /// `Transient`. A commit that the ledger knows nothing of has an explanation without events.
    pub async fn explain_commit(
        &self,
        tenant: &Tenant,
        repo: &RepoId,
        commit: &CommitId,
    ) -> Result<Explanation> {
        explain::commit(&self.core, tenant, repo, commit).await
    }

    /// What would run for an observation with these workflows alone. The repositories are asked
    /// where a decision or a pipeline hangs on them, and the policy judges; nothing is written or
    /// created.
    ///
    /// # Errors
    ///
    /// `Invalid` when a workflow cannot be registered or the observation is no event, and what a
    /// repository or the policy fails with that may pass.
    pub async fn simulate(&self, request: SimulationRequest) -> Result<Simulation> {
        simulate::in_core(&self.core, request).await
    }

    /// What would have run for recorded events with candidate workflows in place of the registered
    /// ones of their names, beside what did; one page of events, oldest first. Nothing is written or
    /// created.
    ///
    /// # Errors
    ///
    /// As [`simulate`](Self::simulate).
    pub async fn replay(
        &self,
        events: EventQuery,
        candidates: &[LoadedWorkflow],
    ) -> Result<Vec<Replayed>> {
        simulate::replay(&self.core, events, candidates).await
    }

    /// Registers a workflow of a tenant, in place of the one of that name. It counts for events that
    /// are decided from now on.
    ///
    /// # Errors
    ///
    /// `Invalid` with everything that is wrong with its triggers; nothing changed then.
    pub fn register(&self, tenant: &Tenant, workflow: LoadedWorkflow) -> Result<()> {
        self.core.definitions.register(tenant, Arc::new(workflow.into()))
    }

    /// Registers many workflows at once, which costs much less than one after the other. Returns for
    /// each what [`register`](Self::register) would have.
    pub fn register_all(&self, workflows: Vec<(Tenant, LoadedWorkflow)>) -> Vec<Result<()>> {
        let packed: Vec<_> = workflows
            .into_iter()
            .map(|(tenant, workflow)| (tenant, Arc::new(workflow.into())))
            .collect();
        self.core.definitions.register_all(&packed)
    }

    /// Takes a registered workflow out. Its runs go on. Returns whether it was there.
    pub fn unregister(&self, tenant: &Tenant, name: &str) -> bool {
        self.core.definitions.unregister(tenant, name)
    }

    /// Reads what the default branch of a repository defines, its schedules above all, and has
    /// sources poll it: all branches and tags, for each says itself what runs for it. It is read
    /// again when an event says that it moved. A program calls this for each repository that it
    /// serves without a registered workflow. Returns whether something changed.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such connection or repository, and what the repository fails with.
    pub async fn watch_repository(
        &self,
        tenant: &Tenant,
        connection: &ConnectionName,
        repo: &str,
    ) -> Result<bool> {
        self.core.definitions.read_default_branch(&self.core, tenant, connection, repo).await
    }
}
