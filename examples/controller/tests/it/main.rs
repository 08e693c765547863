//! The controller as it is deployed: a process between stand-ins for GitHub, for the API server with
//! Tekton, and a ledger; killed and frozen.

mod deployed;
mod fire;
mod manifests;
mod notifiers;
mod replicas;
mod stopping;
