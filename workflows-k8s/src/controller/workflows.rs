//! Following Workflows: what is registered with the engine.

use std::collections::{BTreeMap, BTreeSet};

use workflows_core::{
    Tenant,
    policy::Verdict as Judged,
    workflow::{LoadContext, LoadedWorkflow, load_object},
};

use super::{
    objects::{Key, Kind, Object, Objects},
    reconcile::Reconciler,
    statuses::Verdict,
};
use crate::resources::READY;

/// The condition of a Workflow that says whether the policies would let it run.
const ALLOWED: &str = "Allowed";

impl Reconciler {
    pub(super) fn follow_workflows(&mut self, objects: &Objects, keys: &BTreeSet<Key>) {
        let mut contexts: BTreeMap<String, LoadContext> = BTreeMap::new();
        let mut right: Vec<(Key, Tenant, LoadedWorkflow)> = Vec::new();
        for key in keys {
            let object =
                objects.get(Kind::Workflow, key).filter(|object| object.deleted_at.is_none());
            let Ok(tenant) = Tenant::new(key.0.as_str()) else { continue };
            let Some(object) = object else {
                self.take_out(&tenant, key);
                continue;
            };
            let context = contexts.entry(key.0.clone()).or_insert_with(|| self.names_of(&tenant));
            let source = format!(
                "Workflow {}/{} uid {} generation {}",
                object.namespace, object.name, object.uid, object.generation
            );
            match load_object(&source, &object.document(), context) {
                Ok(loaded) => right.push((key.clone(), tenant, loaded)),
                Err(problems) => {
                    let told: Vec<String> = problems
                        .iter()
                        .map(|problem| match problem.field.as_str() {
                            "" => problem.message.clone(),
                            field => format!("{field}: {}", problem.message),
                        })
                        .collect();
                    self.refuse(object, &tenant, &told.join("; "));
                }
            }
        }
        let workflows =
            right.iter().map(|(_, tenant, loaded)| (tenant.clone(), loaded.clone())).collect();
        let registered = self.engine.register_all(workflows);
        for ((key, tenant, loaded), result) in right.into_iter().zip(registered) {
            let Some(object) = objects.get(Kind::Workflow, &key) else { continue };
            match result {
                Ok(()) => {
                    self.foretell(objects, &key);
                    self.registered.insert(key);
                    let about = loaded.workflow().spec.repos.first();
                    let about = about.map_or("", |repo| &*repo.repo);
                    let verdict =
                        Verdict::yes("Registered", format!("it starts runs for events at {about}"));
                    self.parts.statuses.tell(object, READY, verdict);
                }
                Err(error) => self.refuse(object, &tenant, &error.to_string()),
            }
        }
    }

    /// Has a workflow say whether the policies would let it run, as far as that is certain before an event.
    pub(super) fn foretell(&self, objects: &Objects, key: &Key) {
        let Some(object) = objects.get(Kind::Workflow, key) else { return };
        let Ok(tenant) = Tenant::new(key.0.as_str()) else { return };
        let verdict = match self.parts.policy.foretell(&tenant, &object.document()) {
            Some(Judged::Deny { rule }) => Verdict::no("Denied", rule),
            Some(_) => Verdict::yes("Allowed", "no policy forbids what it says"),
            None if object.says(ALLOWED) => Verdict::yes("Allowed", "no policy is about it"),
            None => return,
        };
        self.parts.statuses.tell(object, ALLOWED, verdict);
    }

    fn refuse(&mut self, object: &Object, tenant: &Tenant, problem: &str) {
        self.take_out(tenant, &object.key());
        let verdict =
            Verdict::no("Invalid", format!("{problem}; until it is mended it starts nothing"));
        self.parts.statuses.tell(object, READY, verdict);
    }

    fn take_out(&mut self, tenant: &Tenant, key: &Key) {
        if self.registered.remove(key) {
            self.engine.unregister(tenant, &key.1);
        }
    }

    /// The names that a tenant's workflows may use.
    fn names_of(&self, tenant: &Tenant) -> LoadContext {
        let mut context = LoadContext::registered();
        let connections = self.served.keys().filter(|(of, _)| of == tenant);
        context.connections = Some(connections.map(|(_, name)| name.to_string()).collect());
        let notifiers = self.told.keys().filter(|(of, _)| of == tenant);
        context.notifiers = Some(notifiers.map(|(_, name)| name.to_string()).collect());
        context.sinks = self.sinks.clone();
        context
    }
}
