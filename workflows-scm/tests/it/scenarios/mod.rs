//! One table of what happens at hosts, and which events come of it, whichever way they come: for every
//! driver that has a stand-in of its host ([`Host`]).

mod host;
mod table;
mod ways;

pub(crate) use self::{
    host::{CONNECTION, Host, Names},
    table::Deed,
    ways::{Way, play_all},
};
