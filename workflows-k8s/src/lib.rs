//! Workflows on Kubernetes.
//!
//! [`TektonSink`] executes runs as Tekton PipelineRuns, [`KubernetesSecrets`] reads secrets, and
//! [`violations`] checks a PipelineRun against the rules for names, labels, annotations and owners
//! before it is sent anywhere. The custom resources and the controller build on them.

mod error;
mod limits;
mod namespaces;
mod secrets;
mod tekton;

pub use self::{
    limits::{Violation, violations},
    namespaces::Namespaces,
    secrets::KubernetesSecrets,
    tekton::{Swept, TektonSink},
};
