//! The GitHub driver.

mod budget;
mod conformance;
mod credentials;
mod faults;
mod reading;
mod scripted;
mod world;
