//! Refs, and the commits where they stand.

use std::sync::Arc;

use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use serde::{Deserialize, Serialize};
use workflows_core::{CommitId, Error, Result, repo::RefPosition};

use super::connection::GitLabProject;
use crate::rest::{Priority, ref_names::asked_for};

const RESOLVE: &str = "resolve ref";
const LIST: &str = "list refs";

/// A branch or a tag (<https://docs.gitlab.com/api/branches/>, <https://docs.gitlab.com/api/tags/>). The
/// commit of an annotated tag is the one that it marks.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Named {
    name: String,
    commit: Commit,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Commit {
    id: CommitId,
}

/// Where branches and tags are.
const KINDS: [(&str, &str); 2] = [("heads", "branches"), ("tags", "tags")];

impl GitLabProject {
    pub(super) async fn resolve_now(&self, reference: &str) -> Result<CommitId> {
        if let Ok(commit) = reference.parse::<CommitId>() {
            return Ok(self.commit_info(&commit).await?.id.clone());
        }
        let at = |error: Error| error.with("ref", crate::printable::printable(reference));
        let Some(name) = reference.strip_prefix("refs/") else {
            return Err(at(Error::invalid(
                RESOLVE,
                "a ref has its full name, such as refs/heads/main, or is a commit id",
            )));
        };
        let kind = KINDS.iter().find_map(|(kind, place)| {
            let name = name.strip_prefix(kind)?.strip_prefix('/')?;
            (!name.is_empty()).then_some((*place, name))
        });
        let client = self.client(Priority::Fetch);
        match kind {
            Some((place, name)) => {
                let route = self.route(["repository", place, name]);
                let found: Named = client.look(RESOLVE, &route).await.map_err(at)?;
                if found.name != name {
                    let missing = Error::not_found(RESOLVE, "there is no ref of exactly that name");
                    return Err(at(missing));
                }
                Ok(found.commit.id)
            }
            // Such as `refs/merge-requests/7/head`.
            None => {
                let route = self.route(["repository", "commits", reference]);
                Ok(client.look::<Commit>(RESOLVE, &route).await.map_err(at)?.id)
            }
        }
    }

    /// Each prefix is asked for alone: GitLab lists what begins with it.
    pub(super) fn refs_now(&self, prefixes: &[Arc<str>]) -> BoxStream<'_, Result<RefPosition>> {
        let listings: Vec<BoxStream<'_, Result<RefPosition>>> = asked_for(prefixes)
            .iter()
            .flat_map(|asked| {
                KINDS.iter().filter_map(|(kind, place)| self.beginning_with(asked, kind, place))
            })
            .collect();
        let wanted = prefixes.to_vec();
        stream::iter(listings)
            .flatten()
            .try_filter(move |found| {
                let fits = wanted.iter().any(|prefix| found.name.starts_with(&**prefix));
                std::future::ready(fits)
            })
            .boxed()
    }

    fn beginning_with(
        &self,
        asked: &str,
        kind: &'static str,
        place: &'static str,
    ) -> Option<BoxStream<'_, Result<RefPosition>>> {
        let name = match asked.strip_prefix(kind) {
            Some("") => "",
            Some(rest) => rest.strip_prefix('/')?,
            // `refs/he` begins all branches.
            None => kind.starts_with(asked).then_some("")?,
        };
        let mut route = self.route(["repository", place]).query("per_page", 100);
        if place == "branches" {
            route = route.query("pagination", "keyset");
        }
        // A dollar at the end would ask for what ends so.
        if !name.is_empty() && !name.ends_with('$') {
            route = route.query("search", format!("^{name}"));
        }
        let listed = self.client(Priority::Poll).look_at_pages::<Named>(LIST, route);
        let position = move |found: Named| RefPosition {
            name: format!("refs/{kind}/{}", found.name).into(),
            commit: found.commit.id,
        };
        Some(listed.map_ok(position).boxed())
    }
}
