//! A workflow as events are matched with it.

use std::sync::Arc;

use super::{CompiledTrigger, Problem};
use crate::{
    ConnectionName, Tenant, Workflow, WorkflowId,
    workflow::{LoadedWorkflow, Schedule, Trigger},
};

/// A workflow as events are matched with it: whose repository's events, and its triggers compiled.
#[derive(Debug)]
pub struct Definition {
    tenant: Tenant,
    id: WorkflowId,
    connection: ConnectionName,
    repo: Arc<str>,
    triggers: Arc<[CompiledTrigger]>,
    schedules: Box<[(Arc<str>, Schedule)]>,
}

impl Definition {
    /// A registered workflow: the first of its repositories is the one whose events start it, by
    /// name or pattern.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the triggers, and a workflow without repositories.
    pub fn registered(tenant: Tenant, workflow: &Workflow) -> Result<Self, Vec<Problem>> {
        let Some(first) = workflow.spec.repos.first() else {
            let message = "a registered workflow names the repository whose events start it";
            return Err(vec![Problem::new("repos", message)]);
        };
        let (connection, repo) = (first.connection.clone(), Arc::clone(&first.repo));
        let id = WorkflowId::registered(Arc::clone(&workflow.metadata.name));
        Self::new(tenant, id, connection, repo, workflow)
    }

    /// A workflow that was loaded, with the triggers that were compiled then; otherwise as
    /// [`new`](Self::new).
    pub fn of(
        tenant: Tenant,
        id: WorkflowId,
        connection: ConnectionName,
        repo: impl Into<Arc<str>>,
        loaded: &LoadedWorkflow,
    ) -> Self {
        let triggers = Arc::clone(loaded.triggers());
        let schedules = schedules_of(&loaded.workflow().spec.triggers);
        Self { tenant, id, connection, repo: repo.into(), triggers, schedules }
    }

    /// A workflow with that identity, started by the events of one repository or of those of a
    /// pattern.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the triggers.
    pub fn new(
        tenant: Tenant,
        id: WorkflowId,
        connection: ConnectionName,
        repo: impl Into<Arc<str>>,
        workflow: &Workflow,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut triggers = Vec::with_capacity(workflow.spec.triggers.len());
        for (index, trigger) in workflow.spec.triggers.iter().enumerate() {
            match CompiledTrigger::compile(trigger) {
                Ok(trigger) => triggers.push(trigger),
                Err(found) => problems.extend(found.into_iter().map(|problem| {
                    Problem::new(format!("triggers[{index}].{}", problem.field), problem.message)
                })),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let (repo, schedules) = (repo.into(), schedules_of(&workflow.spec.triggers));
        Ok(Self { tenant, id, connection, repo, triggers: triggers.into(), schedules })
    }

    /// The tenant.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The workflow's identity.
    pub fn id(&self) -> &WorkflowId {
        &self.id
    }

    /// The connection of the repository.
    pub fn connection(&self) -> &ConnectionName {
        &self.connection
    }

    /// The full name of the repository whose events start it, or a pattern of such names.
    pub fn repo(&self) -> &Arc<str> {
        &self.repo
    }

    /// The triggers, in the order of the document.
    pub fn triggers(&self) -> &[CompiledTrigger] {
        &self.triggers
    }

    /// The schedules, each with the name of its trigger.
    pub fn schedules(&self) -> &[(Arc<str>, Schedule)] {
        &self.schedules
    }
}

fn schedules_of(triggers: &[Trigger]) -> Box<[(Arc<str>, Schedule)]> {
    let scheduled = triggers.iter().filter_map(|one| Some((&one.name, one.schedule.as_ref()?)));
    scheduled.map(|(trigger, schedule)| (Arc::clone(trigger), schedule.clone())).collect()
}
