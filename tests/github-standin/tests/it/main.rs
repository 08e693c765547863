//! The stand-in itself: that it keeps state as GitHub does, and refuses what GitHub refuses.

mod apps;
mod checks;
mod client;
mod deliveries;
mod faults;
mod limits;
mod objects;
mod pull_requests;
