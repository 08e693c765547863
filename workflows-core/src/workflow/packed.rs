//! A workflow at rest: a registered one is kept as text until an event is for it.

use std::{fmt, sync::Arc};

use super::{
    document::Workflow,
    load::{DocumentPlace, LoadedWorkflow},
    render::Templates,
};
use crate::matching::CompiledTrigger;

/// A [`LoadedWorkflow`] in a quarter of the memory: its document as JSON, and no templates. The
/// triggers, which events are matched with, stay compiled.
pub(crate) struct PackedWorkflow {
    name: Arc<str>,
    document: Document,
    triggers: Arc<[CompiledTrigger]>,
    digest: Arc<str>,
    source: Arc<str>,
    line: u32,
    place: DocumentPlace,
}

enum Document {
    Json(Box<[u8]>),
    /// One that would not be the same when it is read from its JSON.
    Whole(Arc<Workflow>),
}

impl PackedWorkflow {
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The document.
    pub(crate) fn document(&self) -> Arc<Workflow> {
        match &self.document {
            Document::Whole(workflow) => Arc::clone(workflow),
            Document::Json(json) => Arc::new(
                serde_json::from_slice(json).expect("it was read from this when it was packed"),
            ),
        }
    }

    /// The workflow that was packed.
    pub(crate) fn unpack(&self) -> LoadedWorkflow {
        let workflow = self.document();
        // Whatever is wrong was told when it was loaded.
        let templates = Templates::compile(&workflow, self.place, &mut Vec::new());
        LoadedWorkflow {
            workflow,
            templates: Arc::new(templates),
            triggers: Arc::clone(&self.triggers),
            digest: Arc::clone(&self.digest),
            source: Arc::clone(&self.source),
            line: self.line,
            place: self.place,
        }
    }
}

impl From<LoadedWorkflow> for PackedWorkflow {
    fn from(loaded: LoadedWorkflow) -> Self {
        let LoadedWorkflow { workflow, templates: _, triggers, digest, source, line, place } =
            loaded;
        let name = Arc::clone(&workflow.metadata.name);
        let json = serde_json::to_vec(&*workflow).unwrap_or_default();
        let document = match serde_json::from_slice::<Workflow>(&json) {
            Ok(same) if same == *workflow => Document::Json(json.into()),
            _ => Document::Whole(workflow),
        };
        Self { name, document, triggers, digest, source, line, place }
    }
}

impl fmt::Debug for PackedWorkflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedWorkflow")
            .field("name", &self.name)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::{LoadContext, load};

    #[test]
    fn what_is_unpacked_is_what_was_packed() {
        let text = "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: ci, labels: { team: a } }
spec:
  repos: [ { name: code, connection: acme, repo: acme/api } ]
  triggers:
  - { name: push, on: push, branches: { exclude: [\"wip/*\"] }, filter: [event.sender != 'bot'] }
  - { name: nightly, on: schedule, schedule: { cron: '0 3 * * *', asOf: 7d } }
  params:
  - { name: list, value: [$(event.head.sha), b] }
  - { name: number, default: '1.5e300' }
  pipelineSpec:
    tasks: [ { name: a, timeout: 1h, taskSpec: { steps: [ { name: s, script: '$(params.list[0])', n: 1.25e-7 } ] } } ]
  concurrency: [ { group: $(event.head.ref), strategy: queue } ]
";
        let mut loaded = load("ci.yaml", text, &LoadContext::registered());
        assert_eq!(loaded.problems, []);
        let loaded = loaded.workflows.remove(0);
        let packed = PackedWorkflow::from(loaded.clone());
        assert!(matches!(packed.document, Document::Json(_)));
        let unpacked = packed.unpack();
        assert_eq!(unpacked.workflow(), loaded.workflow());
        assert_eq!(unpacked.triggers(), loaded.triggers());
        assert_eq!(format!("{:?}", unpacked.templates), format!("{:?}", loaded.templates));
        assert_eq!(unpacked.digest(), loaded.digest());
        assert_eq!(
            (unpacked.source(), unpacked.line(), unpacked.place()),
            (loaded.source(), loaded.line(), loaded.place())
        );
    }
}
