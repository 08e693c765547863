//! The routes. A file for each topic.

mod graphql;
mod hooks;
mod members;
mod merge_requests;
mod projects;
mod repository;
mod statuses;
mod tokens;

use std::collections::BTreeMap;

use workflows_standin_kit::fit;

use crate::{
    answer::{Reply, Request},
    world::World,
};

/// What answers a route.
pub(crate) type Handler = fn(&mut World, &Request) -> Reply;

/// A route, with GitLab's names of its parts in braces.
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) template: &'static str,
    pub(crate) handler: Handler,
}

const fn route(method: &'static str, template: &'static str, handler: Handler) -> Route {
    Route { method, template, handler }
}

const fn get(template: &'static str, handler: Handler) -> Route {
    route("GET", template, handler)
}

const ALL: &[&[Route]] = &[
    projects::ROUTES,
    repository::ROUTES,
    merge_requests::ROUTES,
    members::ROUTES,
    statuses::ROUTES,
    hooks::ROUTES,
    tokens::ROUTES,
    graphql::ROUTES,
];

/// The route for a path, whose segments are decoded, and what its parameters are.
pub(crate) fn find(
    method: &str,
    segments: &[String],
) -> Option<(&'static Route, BTreeMap<&'static str, String>)> {
    let routes = ALL.iter().flat_map(|routes| routes.iter()).filter(|one| one.method == method);
    let fits = routes.filter_map(|route| Some((route, fit(route.template, segments)?)));
    // The more of it is written out, the better it fits.
    fits.max_by_key(|(route, _)| {
        route.template.split('/').filter(|part| !part.starts_with('{')).count()
    })
}
