//! Projects (<https://docs.gitlab.com/api/projects/>).

use super::{Route, get};
use crate::{
    access::Caller,
    answer::{Answer, Reply, Request},
    world::World,
};

pub(super) const ROUTES: &[Route] = &[get("/projects/{id}", one)];

fn one(world: &mut World, request: &Request) -> Reply {
    let name = request.param("id");
    let project = world.project_for(name, &request.caller, 10)?;
    let is_by_path = name.parse::<u64>().is_err();
    if is_by_path && !project.path.eq_ignore_ascii_case(name) {
        // A project that was moved answers to its old path.
        let to = format!("{}/api/v4/projects/{}", world.root, project.id);
        return Err(Answer::error(301, "301 Moved Permanently").header("location", to));
    }
    Answer::ok(world.project_view(project, request.caller != Caller::Anonymous))
}
