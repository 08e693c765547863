//! Git over http, by git's own `http-backend`.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderValue, Response, header, request::Parts},
};
use data_encoding::BASE64;
use workflows_standin_kit::{http_backend, plain};

use crate::{
    access::{Caller, Level},
    server::Shared,
};

/// Serves `/{owner}/{repo}.git/...` to who may read the repository, and nothing else.
pub(crate) async fn serve(shared: &Arc<Shared>, parts: &Parts, body: Body) -> Response<Body> {
    let path = parts.uri.path();
    let Some((name, rest)) = path.trim_start_matches('/').split_once(".git/") else {
        return plain(404, "Not Found");
    };
    let place = {
        let world = shared.world();
        let id = world.names.get(&name.to_ascii_lowercase());
        let Some(repo) = id.and_then(|id| world.repos.get(id)) else {
            return plain(404, "Repository not found.");
        };
        let authorization = parts.headers.get(header::AUTHORIZATION);
        let shown = authorization.and_then(|value| value.to_str().ok());
        // A user's name and, as the password, the token.
        let token = shown.and_then(|text| text.strip_prefix("Basic ")).and_then(|text| {
            let decoded = BASE64.decode(text.trim().as_bytes()).ok()?;
            let decoded = String::from_utf8(decoded).ok()?;
            Some(format!("Bearer {}", decoded.split_once(':')?.1))
        });
        let caller = world.caller(token.as_deref().or(shown)).unwrap_or(Caller::Anonymous);
        if world.may(&caller, repo, "contents", Level::Read).is_err() {
            let mut response = plain(401, "Repository not found.");
            let realm = HeaderValue::from_static("Basic realm=\"GitHub\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
            return response;
        }
        repo.git.path().to_owned()
    };
    http_backend(&place, rest, parts, body).await
}
