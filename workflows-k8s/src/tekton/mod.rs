//! Runs as Tekton PipelineRuns: [`TektonSink`].

mod annotated;
mod cancel;
mod changes;
mod credential;
mod existing;
mod finding;
mod identity;
mod kinds;
mod logs;
mod status;

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use workflows_core::{
    CancelMode, Error, ErrorKind, Result, RunKey, RunSink, RunStatus, SharedClock, SystemClock,
    sink::{ChangedRun, EnsuredRun, ExistingRun, GivenCredential, LogSource, RunRequest, SinkRun},
};

pub use self::{annotated::AnnotatedRuns, credential::Swept, kinds::RunKind};
use self::{
    changes::Told,
    credential::{Fate, Owner},
    identity::{Handle, RUN, RUN_KEY, TENANT},
    status::PipelineRun,
};
use crate::{error::from_kube, limits::of_metadata, namespaces::Namespaces};

/// The name under which the sink writes fields.
const MANAGER: &str = "workflows";

/// Executes runs as `tekton.dev/v1` PipelineRuns.
///
/// | call | requests | done twice | refused for good |
/// | --- | --- | --- | --- |
/// | `ensure` | POST; GET when it is there; with a credential, POST and PATCH of its Secret | the same PipelineRun, by name and by the run key in its annotations | what Tekton's admission denies; a name that something else has |
/// | `state` | GET, and one list of its TaskRuns | nothing changes | |
/// | `renew` | GET; POST and PATCH of the Secret | the Secret holds the newer credential | a Secret that is not the run's |
/// | `cancel` | GET, PATCH of `spec.status` | nothing changes; a stronger way replaces a weaker one | |
/// | `existing` | lists, a page at a time | nothing changes | |
/// | `changes` | a watch of PipelineRuns and one of TaskRuns for each place | | |
/// | `logs` | list of TaskRuns, GET of a pod's log | nothing changes | |
///
/// PipelineRuns that do not carry the run's key are never touched, whatever their name.
///
/// # Names and labels
///
/// The engine names the run and puts its whole identity into annotations. The sink adds the label
/// `workflows.tekton.dev/run`, by which it finds its own objects again. Tekton hands labels and
/// annotations on to TaskRuns and pods.
///
/// # The clone credential
///
/// Where the engine has minted one, it is in the Secret `<name of the run>-git`, made before the
/// PipelineRun and collected with it, with the keys `.gitconfig` and `.git-credentials` (as the
/// `basic-auth` workspace of the `git-clone` task wants them), `username` and `token`. A workflow
/// binds it so:
///
/// ```yaml
/// workspaces:
/// - { name: basic-auth, secret: { secretName: "$(run.name)-git" } }
/// ```
///
/// # What it needs
///
/// In each namespace: `pipelineruns` of `tekton.dev` (get, list, watch, create, patch), `taskruns` (get,
/// list, watch), `secrets` (create, get, list, patch, delete) where credentials are minted, `pods/log`
/// (get) for the last lines of a failing step.
#[derive(Clone)]
pub struct TektonSink {
    client: Client,
    namespaces: Namespaces,
    /// PipelineRuns first.
    kinds: Vec<RunKind>,
    dashboard: Option<Arc<str>>,
    clock: SharedClock,
}

impl fmt::Debug for TektonSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TektonSink")
            .field("namespaces", &self.namespaces)
            .field("dashboard", &self.dashboard)
            .finish_non_exhaustive()
    }
}

impl TektonSink {
    /// A sink that executes each tenant's runs where `namespaces` says.
    ///
    /// The engine bounds each call and decides what is tried again, so make the client with
    /// [`Config::default_retry`](kube::Config::default_retry) off. The program installs the TLS
    /// provider.
    pub fn new(client: Client, namespaces: Namespaces) -> Self {
        Self {
            client,
            namespaces,
            kinds: vec![RunKind::pipeline_run()],
            dashboard: None,
            clock: Arc::new(SystemClock),
        }
    }

    /// Links runs to a Tekton Dashboard at this address, such as `https://tekton.example.com`.
    ///
    /// # Errors
    ///
    /// `Invalid` when it is not an http or https address.
    pub fn dashboard(mut self, address: &str) -> Result<Self> {
        if !address.starts_with("https://") && !address.starts_with("http://") {
            let message = "the dashboard's address must begin with https:// or http://";
            return Err(Error::invalid("set up the Tekton sink", message)
                .with("address", format!("{address:?}")));
        }
        self.dashboard = Some(address.trim_end_matches('/').into());
        Ok(self)
    }

    /// Has the sink make objects of a further kind, where a run is one.
    ///
    /// # Errors
    ///
    /// `Invalid` when it knows the kind already.
    pub fn kind(mut self, kind: RunKind) -> Result<Self> {
        let ApiResource { api_version, kind: name, .. } = kind.resource();
        let is_same = |one: &&RunKind| one.resource() == kind.resource();
        if self.kinds.iter().find(is_same).is_some() {
            let message = format!("the kind {api_version} {name} is known already");
            return Err(Error::invalid("set up the Tekton sink", message));
        }
        self.kinds.push(kind);
        Ok(self)
    }

    /// Sets the clock; the engine's.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Gives Secrets the owner that a crash kept from them, and removes those whose run was never
    /// created or has ended. To be called at start and now and then; two callers at once do no harm.
    ///
    /// # Errors
    ///
    /// The API server's. What was swept until then is swept.
    pub async fn sweep(&self) -> Result<Swept> {
        let mut all = Swept::default();
        for namespace in self.namespaces.watched() {
            let secrets: Api<Secret> = match &namespace {
                Some(namespace) => Api::namespaced(self.client.clone(), namespace),
                None => Api::all(self.client.clone()),
            };
            let swept = credential::sweep(self, &secrets, self.now()).await?;
            all.adopted += swept.adopted;
            all.removed += swept.removed;
        }
        Ok(all)
    }

    /// What became of the run that a Secret was made for.
    async fn fate(&self, namespace: &str, name: &str, key: &RunKey) -> Result<Fate> {
        match self.find(&self.kinds, namespace, name, key, None).await {
            Ok((kind, object)) if kind.status(&object)?.phase.is_terminal() => Ok(Fate::Ended),
            Ok((kind, object)) => Ok(Fate::Needed(self.handle(&kind, &object)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Fate::Missing),
            Err(error) => Err(error),
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The object as it is sent.
    fn object(&self, request: &RunRequest, namespace: &str) -> Result<DynamicObject> {
        const OPERATION: &str = "create a run";
        let found = of_metadata(&request.pipeline_run);
        if !found.is_empty() {
            let told: Vec<String> = found.iter().map(ToString::to_string).collect();
            return Err(Error::invalid(OPERATION, told.join("; ")));
        }
        let object: Result<DynamicObject, _> =
            serde_json::from_value((*request.pipeline_run).clone());
        let mut object = object.map_err(|error| Error::invalid(OPERATION, error.to_string()))?;
        object.metadata.name = Some(request.name.to_string());
        object.metadata.namespace = Some(namespace.to_owned());
        let annotations = object.annotations_mut();
        annotations.insert(RUN_KEY.to_owned(), request.key.as_str().to_owned());
        annotations.insert(TENANT.to_owned(), request.tenant.as_str().to_owned());
        object.labels_mut().insert(RUN.to_owned(), identity::short(&request.key));
        Ok(object)
    }

    async fn create(
        &self,
        kind: &RunKind,
        object: &DynamicObject,
        request: &RunRequest,
    ) -> Result<(bool, Handle)> {
        const OPERATION: &str = "create a run";
        let namespace = object.namespace().unwrap_or_default();
        let params =
            PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        match self.objects(kind, &namespace).create(&params, object).await {
            Ok(created) => Ok((true, self.handle(kind, &created)?)),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let of_kind = std::slice::from_ref(kind);
                match self.find(of_kind, &namespace, &request.name, &request.key, None).await {
                    Ok((kind, found)) => Ok((false, self.handle(&kind, &found)?)),
                    Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::invalid(
                        OPERATION,
                        format!(
                            "there is a {} of that name which is not this run's; remove it, and run again",
                            kind.resource().kind
                        ),
                    )
                    .with("namespace", &namespace)
                    .with("name", &request.name)),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(from_kube(OPERATION, error, self.now())),
        }
    }
}

#[async_trait]
impl RunSink for TektonSink {
    async fn ensure(&self, request: &RunRequest) -> Result<EnsuredRun> {
        let namespace = self.namespaces.of(&request.tenant);
        let kind = self.kind_of(&request.pipeline_run)?;
        let object = self.object(request, &namespace)?;
        let secrets = self.secrets(&namespace);
        if let Some(credential) = &request.credential {
            let owner = Owner { tenant: &request.tenant, key: &request.key, name: &request.name };
            let clone_url = request.clone_url.as_deref().unwrap_or_default();
            credential::put(&secrets, &owner, credential, clone_url, self.now()).await?;
        }
        let created = self.create(kind, &object, request).await;
        if request.credential.is_some() {
            let settled = match &created {
                Ok((_, handle)) => credential::own(&secrets, handle, self.now()).await,
                Err(error) if credential::is_final(error) => {
                    credential::remove(&secrets, &request.name, self.now()).await
                }
                Err(_) => Ok(()),
            };
            if let Err(error) = settled {
                tracing::warn!(%error, run = %request.name, "its credential is left to the next sweep");
            }
        }
        let (created, handle) = created?;
        Ok(self.ensured(created, &handle))
    }

    async fn state(&self, run: &SinkRun) -> Result<RunStatus> {
        let (kind, object) = self.find_run(run).await?;
        if !kind.is_pipeline_run() {
            return kind.status(&object);
        }
        let pipeline_run: PipelineRun = read(&object)?;
        let task_runs = match pipeline_run.has_children() {
            true => {
                let handle = self.handle(&kind, &object)?;
                self.task_runs_of(&handle.namespace, &handle.uid).await?
            }
            false => Vec::new(),
        };
        Ok(pipeline_run.run_status(&task_runs))
    }

    async fn cancel(&self, run: &SinkRun, mode: CancelMode) -> Result<()> {
        /// Versions that others write meanwhile are read again so often.
        const TRIES: usize = 5;
        const OPERATION: &str = "cancel a run";
        let mut last = None;
        for _ in 0..TRIES {
            let (kind, object) = match self.find_run(run).await {
                Ok(found) => found,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            if kind.status(&object)?.phase.is_terminal() {
                return Ok(());
            }
            let handle = self.handle(&kind, &object)?;
            let Some(patch) = kind.cancel(&object, mode, &handle.uid)? else { return Ok(()) };
            let params =
                PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            let objects = self.objects(&kind, &handle.namespace);
            match objects.patch(&handle.name, &params, &Patch::Merge(patch)).await {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 404 || cancel::is_over(&status) => {
                    return Ok(());
                }
                Err(error) => {
                    let error = from_kube(OPERATION, error, self.now());
                    if error.kind() != ErrorKind::Conflict {
                        return Err(error);
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::conflict(OPERATION, "the run changes all the time")))
    }

    async fn renew(&self, run: &SinkRun, given: &GivenCredential) -> Result<()> {
        let (kind, object) = match self.find_run(run).await {
            Ok((kind, object)) if !kind.status(&object)?.phase.is_terminal() => (kind, object),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let handle = self.handle(&kind, &object)?;
        let secrets = self.secrets(&handle.namespace);
        let owner = Owner { tenant: &run.tenant, key: &run.key, name: &handle.name };
        credential::put(&secrets, &owner, &given.credential, &given.clone_url, self.now()).await?;
        credential::own(&secrets, &handle, self.now()).await
    }

    fn changes(&self) -> Option<BoxStream<'static, ChangedRun>> {
        let of_kind = |kind: &RunKind| {
            let places = self.watched(kind.resource()).into_iter();
            places.map(|place| (Told::Runs(kind.clone()), place)).collect::<Vec<_>>()
        };
        // TaskRuns are watched in any case: they tell of the runs that they are a part of.
        let of_runs = self.kinds.iter().filter(|kind| !kind.is_task_run()).flat_map(of_kind);
        let of_tasks = self.watched(&resource("TaskRun")).into_iter();
        let of_tasks = of_tasks.map(|place| (Told::Tasks, place));
        Some(changes::changes(of_runs.chain(of_tasks).collect()))
    }

    fn existing(&self) -> BoxStream<'static, Result<ExistingRun>> {
        let of_kind = |kind: &RunKind| {
            let places = self.watched(kind.resource()).into_iter();
            places.map(|place| (kind.clone(), place)).collect::<Vec<_>>()
        };
        let places = self.kinds.iter().flat_map(of_kind).collect();
        existing::existing(self.clone(), places).boxed()
    }

    fn logs(&self) -> Option<&dyn LogSource> {
        Some(self)
    }
}

fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("tekton.dev", "v1", kind))
}

/// What an object says, as far as it is needed here.
fn read<T: serde::de::DeserializeOwned>(object: &DynamicObject) -> Result<T> {
    let mut value = object.data.clone();
    if let Some(fields) = value.as_object_mut() {
        let labels: BTreeMap<String, String> = object.labels().clone();
        let metadata = serde_json::json!({"name": object.name_any(), "labels": labels});
        fields.insert("metadata".to_owned(), metadata);
    }
    serde_json::from_value(value).map_err(|error| {
        Error::transient("read a run", "the API server's answer cannot be read")
            .with("name", object.name_any())
            .caused_by(error)
    })
}
