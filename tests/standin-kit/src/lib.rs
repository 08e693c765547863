//! What the stand-ins for GitHub and GitLab have in common: repositories of git's own, faults, routes.

pub mod faults;
pub mod git;

use std::{collections::BTreeMap, path::Path, process::Stdio};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Response, StatusCode, header, request::Parts},
};
use tokio::{io::AsyncWriteExt, process::Command};

/// A short answer of text.
pub fn plain(status: u16, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(text.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    response
}

/// A segment of a path without its percent-encoding.
pub fn decoded(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut left = segment.as_bytes();
    while let Some((first, rest)) = left.split_first() {
        let hex = rest.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match (first, hex.and_then(|two| u8::from_str_radix(two, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                left = rest.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                left = rest;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What the parameters of a template (`/repos/{owner}/{+path}`, where `+` allows slashes) are for a path,
/// whose segments are decoded; `None` when it does not fit.
pub fn fit(template: &'static str, segments: &[String]) -> Option<BTreeMap<&'static str, String>> {
    let parts: Vec<&'static str> = template.trim_start_matches('/').split('/').collect();
    let mut params = BTreeMap::new();
    let long = parts.iter().position(|part| part.starts_with("{+"));
    let extra = match long {
        Some(_) => segments.len().checked_sub(parts.len())?,
        None if segments.len() == parts.len() => 0,
        None => return None,
    };
    let mut at = 0;
    for (index, part) in parts.iter().enumerate() {
        let many = if Some(index) == long { extra + 1 } else { 1 };
        let taken = segments.get(at..at + many)?;
        at += many;
        match part.strip_prefix('{') {
            Some(name) => {
                let name = name.trim_start_matches('+').trim_end_matches('}');
                params.insert(name, taken.join("/"));
            }
            None if taken.first().is_some_and(|segment| segment == part) => {}
            None => return None,
        }
    }
    Some(params)
}

/// Serves a bare repository by git's own `http-backend`; `rest` is the path below it.
pub async fn http_backend(place: &Path, rest: &str, parts: &Parts, body: Body) -> Response<Body> {
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap_or_default();
    let text = |name: HeaderName| {
        parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    };
    let child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", place)
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
