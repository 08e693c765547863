//! Git over http, by git's own `http-backend`.

use std::{process::Stdio, sync::Arc};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Response, StatusCode, header, request::Parts},
};
use data_encoding::BASE64;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{
    access::{Caller, Level},
    server::{Shared, plain},
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
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap_or_default();
    let text = |name: HeaderName| {
        parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    };
    let child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &place)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", format!("/{rest}"))
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", text(header::CONTENT_TYPE))
        .env("HTTP_CONTENT_ENCODING", text(header::CONTENT_ENCODING))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("GIT_PROTOCOL", text(HeaderName::from_static("git-protocol")))
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_COUNT", "2")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("GIT_CONFIG_KEY_1", "uploadpack.allowAnySHA1InWant")
        .env("GIT_CONFIG_VALUE_1", "true")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let Ok(mut child) = child else { return plain(500, "there is no git") };
    if let Some(mut stdin) = child.stdin.take() {
        tokio::spawn(async move { stdin.write_all(&body).await });
    }
    let Ok(output) = child.wait_with_output().await else { return plain(500, "git failed") };
    let end = output.stdout.windows(4).position(|four| four == b"\r\n\r\n");
    let Some(end) = end else { return plain(500, "git answered nothing") };
    let (head, rest) = output.stdout.split_at(end);
    let mut response = Response::new(Body::from(rest.get(4..).unwrap_or_default().to_vec()));
    for line in String::from_utf8_lossy(head).lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().and_then(|code| code.parse::<u16>().ok());
            let code = code.and_then(|code| StatusCode::from_u16(code).ok());
            *response.status_mut() = code.unwrap_or_default();
        } else if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
