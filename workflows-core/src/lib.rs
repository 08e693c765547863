//! The model, the traits, the engine and the ledger of Workflows.

mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod engine;
mod error;
pub mod event;
mod git_files;
mod identity;
#[cfg(all(feature = "local", unix))]
pub mod local;
pub mod matching;
pub mod notify;
pub mod policy;
pub mod repo;
pub mod run;
mod secret;
pub mod sink;
pub mod source;
pub mod store;
pub mod workflow;

pub use self::{
    clock::{Clock, ManualClock, SharedClock, SystemClock},
    engine::{Engine, EngineHandle, EngineOptions},
    error::{BoxError, Error, ErrorKind, Result},
    event::{Event, EventKind, Observation, SubjectClaim, Verified},
    git_files::GitFiles,
    identity::{
        AttemptId, CommitId, ConnectionName, DeliveryId, DeliveryKey, EventKey, GroupKey,
        NotifierName, RepoId, RepoRef, RunKey, SinkName, SourceName, Tenant, WorkflowId, hash_of,
    },
    notify::{Delivered, NotificationView, Notifier, Transition},
    policy::{Approval, DefaultPolicy, Policy},
    repo::{Capabilities, Capability, CloneCredential, Permission, RepoConnection, ScmDriver},
    run::{Run, RunState, RunView},
    secret::{SecretRef, SecretStore, StaticSecrets},
    sink::{CancelMode, LogRef, RunPhase, RunSink, RunStatus, TaskStatus},
    source::{EventSource, Publisher},
    store::Store,
    workflow::Workflow,
};
