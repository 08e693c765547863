//! From events to decisions and planned runs, as conversations between people, a host and the engine.

mod commands;
mod definitions;
mod insight;
mod matching;
mod trust;
mod world;
