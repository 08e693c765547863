//! The one query that is known here: the texts of files
//! (<https://docs.gitlab.com/api/graphql/reference/#repositoryblobs>).

use serde_json::{Value, json};

use super::{Route, route};
use crate::{
    answer::{Answer, Reply, Request},
    world::World,
};

pub(super) const ROUTES: &[Route] = &[route("POST", "/graphql", query)];

/// So many nodes come at once.
const MOST: usize = 100;

fn query(world: &mut World, request: &Request) -> Reply {
    let asked = request.body["query"].as_str().unwrap_or_default();
    if !asked.contains("blobs(ref: $commit, paths: $paths)") {
        return Answer::ok(json!({ "errors": [{ "message": "the stand-in knows one query" }] }));
    }
    let variables = &request.body["variables"];
    let text = |name: &str| variables[name].as_str().unwrap_or_default();
    let project = world.project_for(text("project"), &request.caller, 10);
    let Ok(project) = project else { return Answer::ok(json!({ "data": { "project": null } })) };
    let commit = project.git.resolve(text("commit"));
    let paths = variables["paths"].as_array().cloned().unwrap_or_default();
    let node = |path: &Value| {
        let entry = project.git.at(commit?, path.as_str()?).filter(|one| one.kind() == "blob")?;
        let bytes = project.git.blob(entry.id)?;
        let text = std::str::from_utf8(&bytes).ok();
        Some(json!({
            "oid": entry.id.to_string(), "rawSize": bytes.len().to_string(), "rawTextBlob": text,
        }))
    };
    let nodes: Vec<Value> = paths.iter().take(MOST).filter_map(node).collect();
    Answer::ok(json!({ "data": { "project": { "repository": { "blobs": { "nodes": nodes } } } } }))
}
