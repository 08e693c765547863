//! From events to decisions and planned runs, as conversations between people, a host and the engine.

mod answers;
mod commands;
mod definitions;
mod fairness;
mod groups;
mod insight;
mod lacking;
mod limits;
mod lost_ledger;
mod matching;
mod mutators;
mod notify;
mod payloads;
mod registry;
mod trust;
mod world;
