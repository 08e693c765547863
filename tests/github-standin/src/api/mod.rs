//! The routes. A file for each topic.

mod apps;
mod checks;
mod comments;
mod commits;
mod contents;
mod git;
mod graphql;
mod hooks;
mod issues;
mod people;
mod pulls;
mod repos;
mod statuses;

use std::collections::BTreeMap;

pub(crate) use pulls::open_pull_request;

use workflows_standin_kit::fit;

use crate::{
    answer::{Reply, Request},
    world::World,
};

/// What answers a route.
pub(crate) type Handler = fn(&mut World, &Request) -> Reply;

/// A route. The template is GitHub's, with `{+name}` for what may hold slashes.
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) template: &'static str,
    pub(crate) handler: Handler,
    /// Whether GitHub counts it as content that people are told of: its description says so of each
    /// such route ("triggers notifications"), and of no check or status.
    pub(crate) is_content: bool,
}

const fn route(method: &'static str, template: &'static str, handler: Handler) -> Route {
    Route { method, template, handler, is_content: false }
}

const fn get(template: &'static str, handler: Handler) -> Route {
    route("GET", template, handler)
}

const fn content(method: &'static str, template: &'static str, handler: Handler) -> Route {
    Route { method, template, handler, is_content: true }
}

const ALL: &[&[Route]] = &[
    repos::ROUTES,
    git::ROUTES,
    contents::ROUTES,
    commits::ROUTES,
    pulls::ROUTES,
    issues::ROUTES,
    comments::ROUTES,
    checks::ROUTES,
    statuses::ROUTES,
    hooks::ROUTES,
    people::ROUTES,
    apps::ROUTES,
    graphql::ROUTES,
];

/// The route for a path, whose segments are decoded, and what its parameters are.
pub(crate) fn find(
    method: &str,
    segments: &[String],
) -> Option<(&'static Route, BTreeMap<&'static str, String>)> {
    let routes = ALL.iter().flat_map(|routes| routes.iter()).filter(|one| one.method == method);
    let mut best: Option<(usize, &Route, BTreeMap<&'static str, String>)> = None;
    for route in routes {
        if let Some(params) = fit(route.template, segments) {
            // The more of it is written out, the better it fits.
            let written = route.template.split('/').filter(|part| !part.starts_with('{')).count();
            if best.as_ref().is_none_or(|(known, ..)| written > *known) {
                best = Some((written, route, params));
            }
        }
    }
    best.map(|(_, route, params)| (route, params))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_out_fits_better_than_a_parameter() {
        let found = |path: &str| {
            let segments: Vec<String> = path.split('/').map(ToOwned::to_owned).collect();
            find("GET", &segments).map(|(route, params)| (route.template, params))
        };
        let (template, params) = found("repos/acme/api/git/matching-refs/heads/a/b").unwrap();
        assert_eq!(template, "/repos/{owner}/{repo}/git/matching-refs/{+ref}");
        assert_eq!(params["ref"], "heads/a/b");
        let (template, _) = found("repos/acme/api/issues/comments").unwrap();
        assert_eq!(template, "/repos/{owner}/{repo}/issues/comments");
        let (template, params) = found("repos/acme/api/commits/a/b/check-runs").unwrap();
        assert_eq!(template, "/repos/{owner}/{repo}/commits/{+ref}/check-runs");
        assert_eq!(params["ref"], "a/b");
        assert!(found("repos/acme/api/nonsense").is_none());
    }
}
