//! The local run sink, with real processes.

mod behaviour;
mod bench;
#[cfg(feature = "conformance")]
mod conformance;
mod crash;
mod leftovers;
mod logs;
mod refusals;
