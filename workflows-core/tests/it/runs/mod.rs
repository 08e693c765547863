//! From a planned run to its end: dispatcher, observer, reporter and outbox, stepped and running.

mod building;
mod converge;
mod crash;
mod dispatch;
mod notify;
mod observe;
mod report;
mod retention;
mod running;
mod world;
