//! Workflows on Kubernetes, over HTTP with a stand-in for the API server and for Tekton.

#[cfg(all(feature = "api", feature = "controller"))]
mod annotated;
#[cfg(all(feature = "api", feature = "controller"))]
mod api;
#[cfg(all(feature = "api", feature = "controller"))]
mod api_effects;
#[cfg(all(feature = "api", feature = "controller"))]
mod asker;
mod conformance;
#[cfg(feature = "controller")]
mod controller;
mod credentials;
mod definitions;
#[cfg(feature = "github")]
mod github;
#[cfg(all(feature = "github", feature = "gitlab"))]
mod gitlab;
#[cfg(feature = "github")]
mod grants;
#[cfg(feature = "github")]
mod hooks;
#[cfg(feature = "controller")]
mod kinds;
mod lease;
#[cfg(feature = "controller")]
mod platform;
mod refusals;
mod secrets;
mod sink;
mod world;
