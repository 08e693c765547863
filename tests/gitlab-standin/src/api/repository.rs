//! What is in a repository (<https://docs.gitlab.com/api/repositories/>,
//! <https://docs.gitlab.com/api/repository_files/>, <https://docs.gitlab.com/api/branches/>,
//! <https://docs.gitlab.com/api/tags/>, <https://docs.gitlab.com/api/commits/>).

use git2::Oid;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Route, get};
use crate::{
    answer::{Answer, Reply, Request},
    world::{Project, World},
};

pub(super) const ROUTES: &[Route] = &[
    get("/projects/{id}/repository/tree", tree),
    get("/projects/{id}/repository/files/{file_path}/raw", file),
    get("/projects/{id}/repository/blobs/{sha}/raw", blob),
    get("/projects/{id}/repository/branches", branches),
    get("/projects/{id}/repository/branches/{branch}", branch),
    get("/projects/{id}/repository/tags", tags),
    get("/projects/{id}/repository/tags/{tag_name}", tag),
    get("/projects/{id}/repository/commits", commits),
    get("/projects/{id}/repository/commits/{sha}", commit),
    get("/projects/{id}/repository/commits/{sha}/merge_requests", merge_requests),
    get("/projects/{id}/repository/compare", compare),
    get("/projects/{id}/repository/merge_base", merge_base),
];

/// A project whose code the caller may read.
fn readable<'a>(world: &'a World, request: &Request) -> Result<&'a Project, Answer> {
    let name = request.param("id");
    let project = world.project_for(name, &request.caller, 10)?;
    if project.is_public { Ok(project) } else { world.project_for(name, &request.caller, 20) }
}

fn at(project: &Project, request: &Request, name: &str) -> Option<Oid> {
    project.git.resolve(request.text(name).unwrap_or(&project.default_branch))
}

fn tree(world: &mut World, request: &Request) -> Reply {
    let missing = || Answer::not_found("Tree");
    let project = readable(world, request)?;
    let commit = at(project, request, "ref").ok_or_else(missing)?;
    let path = request.text("path").unwrap_or_default().trim_matches('/');
    let entry = project.git.at(commit, path).filter(|one| one.kind() == "tree");
    let entry = entry.ok_or_else(missing)?;
    let entries = project.git.entries(entry.id, request.is_set("recursive"))?;
    let view = |one: workflows_standin_kit::git::Entry| {
        let whole = if path.is_empty() { one.path.clone() } else { format!("{path}/{}", one.path) };
        json!({
            "id": one.id.to_string(), "name": one.path.rsplit('/').next(), "type": one.kind(),
            "path": whole, "mode": format!("{:06o}", one.mode),
        })
    };
    let all = entries.into_iter().map(view).collect();
    request.keyset(&world.root, world.limits.offset, all, "path")
}

fn file(world: &mut World, request: &Request) -> Reply {
    let project = readable(world, request)?;
    let commit = at(project, request, "ref").ok_or_else(|| Answer::not_found("Commit"))?;
    let entry = project.git.at(commit, request.param("file_path"));
    let entry = entry.filter(|one| one.kind() == "blob");
    let bytes = entry.and_then(|one| project.git.blob(one.id));
    Answer::raw(bytes.ok_or_else(|| Answer::not_found("File"))?)
}

fn blob(world: &mut World, request: &Request) -> Reply {
    let project = readable(world, request)?;
    let id = workflows_standin_kit::git::full_id(request.param("sha"));
    let bytes = id.and_then(|id| project.git.blob(id));
    Answer::raw(bytes.ok_or_else(|| Answer::not_found("Blob"))?)
}

/// `^` asks for what begins so, `$` for what ends so; else for what holds it. Case does not matter.
fn fits(search: Option<&str>, name: &str) -> bool {
    let Some(search) = search.map(str::to_lowercase) else { return true };
    let name = name.to_lowercase();
    match (search.strip_prefix('^'), search.strip_suffix('$')) {
        (Some(begin), _) => name.starts_with(begin),
        (None, Some(end)) => name.ends_with(end),
        (None, None) => name.contains(&search),
    }
}

fn named(world: &World, project: &Project, kind: &str, search: Option<&str>) -> Vec<Value> {
    let prefix = format!("refs/{kind}/");
    let refs = project.git.refs(&prefix).into_iter();
    let names = refs.filter_map(|(name, id)| Some((name.strip_prefix(&prefix)?.to_owned(), id)));
    let fitting = names.filter(|(name, _)| fits(search, name));
    fitting.map(|(name, id)| named_view(world, project, &name, id)).collect()
}

fn named_view(world: &World, project: &Project, name: &str, id: Oid) -> Value {
    let commit = project.git.tag(id).map_or(id, |tag| tag.target_id());
    json!({
        "name": name, "target": id.to_string(), "commit": world.commit_view(project, commit),
        "protected": false,
    })
}

fn branches(world: &mut World, request: &Request) -> Reply {
    let all = named(world, readable(world, request)?, "heads", request.text("search"));
    request.keyset(&world.root, world.limits.offset, all, "name")
}

fn tags(world: &mut World, request: &Request) -> Reply {
    let all = named(world, readable(world, request)?, "tags", request.text("search"));
    request.paged(&world.root, world.limits.offset, all)
}

fn one_named(world: &World, request: &Request, kind: &str, param: &str, what: &str) -> Reply {
    let project = readable(world, request)?;
    let name = request.param(param);
    let id = project.git.position(&format!("refs/{kind}/{name}"));
    let id = id.ok_or_else(|| Answer::not_found(what))?;
    Answer::ok(named_view(world, project, name, id))
}

fn branch(world: &mut World, request: &Request) -> Reply {
    one_named(world, request, "heads", "branch", "Branch")
}

fn tag(world: &mut World, request: &Request) -> Reply {
    one_named(world, request, "tags", "tag_name", "Tag")
}

fn commits(world: &mut World, request: &Request) -> Reply {
    let project = readable(world, request)?;
    let from = at(project, request, "ref_name").ok_or_else(|| Answer::not_found("Commit"))?;
    let until: Option<Timestamp> = request.text("until").and_then(|text| text.parse().ok());
    let ids = if request.is_set("first_parent") {
        std::iter::successors(Some(from), |id| project.git.commit(*id)?.parent_ids().next())
            .collect()
    } else {
        project.git.between(None, from)?
    };
    let is_in = |id: &Oid| {
        let seconds = project.git.commit(*id).map_or(0, |commit| commit.time().seconds());
        until.is_none_or(|until| seconds <= until.as_second())
    };
    let all = ids.into_iter().filter(is_in).map(|id| world.commit_view(project, id)).collect();
    request.paged(&world.root, world.limits.offset, all)
}

fn commit(world: &mut World, request: &Request) -> Reply {
    let project = readable(world, request)?;
    let id = project.git.resolve(request.param("sha"));
    Answer::ok(world.commit_view(project, id.ok_or_else(|| Answer::not_found("Commit"))?))
}

fn merge_requests(world: &mut World, request: &Request) -> Reply {
    let project = readable(world, request)?;
    let id = project.git.resolve(request.param("sha"));
    let id = id.ok_or_else(|| Answer::not_found("Commit"))?;
    let has_it = |one: &&crate::world::MergeRequest| {
        let base = project.git.merge_base(one.start, one.head);
        one.head == id || project.git.between(base, one.head).is_ok_and(|all| all.contains(&id))
    };
    let of = project.merge_requests.values().filter(has_it);
    let all = of.map(|one| world.merge_request_view(project, one)).collect();
    request.paged(&world.root, world.limits.offset, all)
}

fn compare(world: &mut World, request: &Request) -> Reply {
    let missing = || Answer::not_found("Ref");
    let project = readable(world, request)?;
    let named = |name: &str| project.git.resolve(request.text(name).unwrap_or_default());
    let (from, to) = (named("from").ok_or_else(missing)?, named("to").ok_or_else(missing)?);
    let base = match request.is_set("straight") {
        true => Some(from),
        false => project.git.merge_base(from, to),
    };
    let diff = |file: workflows_standin_kit::git::FileDiff| {
        json!({
            "old_path": file.previous.as_deref().unwrap_or(&file.path), "new_path": file.path,
            "new_file": matches!(file.status, "added" | "copied"),
            "renamed_file": file.status == "renamed", "deleted_file": file.status == "removed",
            "collapsed": false, "too_large": false, "diff": "",
        })
    };
    let files = project.git.diff(base, to)?.into_iter();
    let diffs: Vec<Value> = files.take(world.limits.compared_files).map(diff).collect();
    let commits = project.git.between(Some(from), to)?.into_iter();
    let commits: Vec<Value> = commits.map(|id| world.commit_view(project, id)).collect();
    Answer::ok(json!({
        "commit": commits.first(), "commits": commits, "diffs": diffs, "compare_timeout": false,
        "compare_same_ref": from == to,
    }))
}

fn merge_base(world: &mut World, request: &Request) -> Reply {
    let project = readable(world, request)?;
    let refs = request.query.iter().filter(|(name, _)| name == "refs[]");
    let ids: Vec<Option<Oid>> = refs.map(|(_, name)| project.git.resolve(name)).collect();
    let [Some(one), Some(other)] = ids.as_slice() else {
        return Err(Answer::error(400, "400 Bad request - Could not find ref"));
    };
    let base = project.git.merge_base(*one, *other);
    Answer::ok(world.commit_view(project, base.ok_or_else(|| Answer::not_found("Merge Base"))?))
}
