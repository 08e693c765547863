//! What the drivers of hosts with a REST API have in common: typed calls on relative routes, under a
//! budget that keeps the host's limits, with one read for all who ask for the same, and what never
//! changes kept by its id. What differs from host to host is a [`Host`].

mod budget;
mod client;
mod conditional;
pub(crate) mod credentials;
mod host;
pub(crate) mod objects;
pub(crate) mod place;
pub(crate) mod ref_names;
mod route;
pub(crate) mod text;
mod transport;
pub(crate) mod trees;

#[cfg(feature = "github")]
pub(crate) use self::{
    budget::Cost,
    transport::{Call, check},
};
pub(crate) use self::{
    budget::{BudgetLimits, Governor, Priority},
    client::{Api, Client},
    conditional::ConditionalCache,
    host::{Authorize, Host, LimitHeaders, MetricNames, Refused, allowed_patterns, base_address},
    route::{Route, is_dots},
    transport::{Answer, ClientOptions, Grant, Transport},
};
pub use self::{
    budget::{CallBudget, LimitBudget},
    credentials::HostSecret,
};
