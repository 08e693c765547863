//! What a token says of itself (<https://docs.gitlab.com/api/personal_access_tokens/#self-inform>).

use serde_json::json;

use super::{Route, get};
use crate::{
    answer::{Answer, Reply, Request},
    world::World,
};

pub(super) const ROUTES: &[Route] = &[get("/personal_access_tokens/self", itself)];

fn itself(world: &mut World, request: &Request) -> Reply {
    request.caller.user()?;
    let known = request.token.as_ref().and_then(|token| world.tokens.get(token));
    let token = known.ok_or_else(|| Answer::error(401, "401 Unauthorized"))?;
    Answer::ok(json!({
        "id": token.id, "name": format!("token of {}", token.holder), "revoked": false,
        "scopes": token.scopes, "user_id": world.users.get(&token.holder), "active": true,
        "expires_at": token.expires_at.map(|day| day.strftime("%Y-%m-%d").to_string()),
    }))
}
