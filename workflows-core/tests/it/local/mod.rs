//! The local run sink, with real processes.

mod behaviour;
mod bench;
