//! The GitHub driver.

mod budget;
mod credentials;
mod faults;
mod scripted;
mod world;
