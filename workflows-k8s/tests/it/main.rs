//! Workflows on Kubernetes, over HTTP with a stand-in for the API server and for Tekton.

mod conformance;
mod credentials;
mod definitions;
mod lease;
mod refusals;
mod secrets;
mod sink;
mod world;
