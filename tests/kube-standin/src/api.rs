//! The HTTP side: paths, verbs and what is checked before anything changes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Query, Request, State as Extract},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use crate::{
    Admission, Fault, Refusal, Resource, Shared, State,
    access::Asked,
    definition::{UnknownFields, definitions},
    logs,
    selector::Selector,
    store::{Continue, Name},
    watch::{self, Watch},
};

/// The largest request that an API server reads.
const MAX_BODY: usize = 3 << 20;

type Parameters = BTreeMap<String, String>;
type Answer = Result<Response, Refusal>;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(serve).with_state(shared)
}

async fn serve(
    Extract(shared): Extract<Arc<Shared>>,
    Query(parameters): Query<Parameters>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let shown = parts.uri.path_and_query().map_or(path.clone(), ToString::to_string);
    let fault = {
        let mut state = shared.lock();
        state.requests.push((parts.method.to_string(), shown.clone()));
        state.faults.take(parts.method.as_str(), &shown)
    };
    match &fault {
        Some(Fault::Refused(refusal)) => return answer(refusal),
        Some(Fault::Slow(time)) => tokio::time::sleep(*time).await,
        _ => {}
    }
    let body = match axum::body::to_bytes(body, MAX_BODY).await {
        Ok(body) => body,
        Err(_) => {
            let message = "Request entity too large: limit is 3145728";
            return answer(&Refusal::new(413, "RequestEntityTooLarge", message, json!({})));
        }
    };
    if shared.real.is_some() {
        return beyond(&shared, &parts, &parameters, body, fault).await;
    }
    let call = Call {
        shared: Arc::clone(&shared),
        method: parts.method,
        headers: parts.headers,
        parameters,
        body: body.to_vec(),
    };
    let response = call.route(&path).unwrap_or_else(|refusal| answer(&refusal));
    match fault {
        Some(Fault::AnswerLost) => lost(),
        _ => response,
    }
}

/// An answer that never comes.
fn lost() -> Response {
    let broken = std::io::Error::other("the connection was reset");
    let body = Body::from_stream(futures::stream::iter([Err::<Vec<u8>, _>(broken)]));
    Response::new(body)
}

/// What a real cluster answers, with what is played of it: whose tokens are, and what pods say.
async fn beyond(
    shared: &Shared,
    parts: &Parts,
    parameters: &Parameters,
    body: Bytes,
    fault: Option<Fault>,
) -> Response {
    let Some(real) = &shared.real else { return answer(&Refusal::no_such_kind()) };
    let owner = match token(&parts.headers) {
        None => None,
        Some(token) => match shared.lock().owners.owner(token) {
            Ok(owner) => Some(owner.clone()),
            Err(refusal) => return answer(&refusal),
        },
    };
    let response = real.forward(parts, body.clone(), owner).await;
    if matches!(fault, Some(Fault::AnswerLost)) {
        return lost();
    }
    let path = parts.uri.path().trim_matches('/');
    if path == "apis/authentication.k8s.io/v1/tokenreviews" && response.status() == 201 {
        let mut review: Value = serde_json::from_slice(&body).unwrap_or_default();
        let token = review["spec"]["token"].as_str().unwrap_or_default().to_owned();
        review["status"] = shared.lock().owners.review(&token);
        return json_response(StatusCode::CREATED, &review);
    }
    // Without nodes nobody has a pod's log, and who may read it was asked all the same.
    if let ["api", "v1", "namespaces", namespace, "pods", pod, "log"] =
        path.split('/').collect::<Vec<_>>()[..]
        && ![StatusCode::FORBIDDEN, StatusCode::NOT_FOUND].contains(&response.status())
    {
        let said = shared.lock().said(namespace, pod, parameters);
        return said.unwrap_or_else(|refusal| answer(&refusal));
    }
    response
}

fn token(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn answer(refusal: &Refusal) -> Response {
    let code = StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json_response(code, &refusal.body)
}

fn json_response(code: StatusCode, body: &Value) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

struct Call {
    shared: Arc<Shared>,
    method: Method,
    headers: HeaderMap,
    parameters: Parameters,
    body: Vec<u8>,
}

/// Which objects a path means.
struct Target {
    resource: Resource,
    namespace: String,
    name: Option<String>,
    sub: Option<String>,
}

impl Call {
    fn route(&self, path: &str) -> Answer {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["version"] => {
                let version = json!({"major": "1", "minor": "33", "gitVersion": "v1.33.0"});
                return Ok(json_response(StatusCode::OK, &version));
            }
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(Refusal::no_such_kind()),
        };
        match (group, rest) {
            ("authorization.k8s.io", ["subjectaccessreviews"]) => return self.review(),
            ("authentication.k8s.io", ["tokenreviews"]) => return self.review_token(),
            _ => {}
        }
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (plural, name, sub) = match rest {
            [plural] => (*plural, None, None),
            [plural, name] => (*plural, Some((*name).to_owned()), None),
            [plural, name, sub] => (*plural, Some((*name).to_owned()), Some((*sub).to_owned())),
            _ => return Err(Refusal::no_such_kind()),
        };
        let resource = self.shared.lock().store.resource(group, version, plural).cloned();
        let resource = resource.ok_or_else(Refusal::no_such_kind)?;
        if resource.namespaced == namespace.is_empty() && name.is_some() {
            return Err(Refusal::no_such_kind());
        }
        let target = Target { resource, namespace: namespace.to_owned(), name, sub };
        self.check_access(&target)?;
        match (target.name.is_some(), target.sub.as_deref()) {
            (true, Some("log")) if target.resource.plural == "pods" => self.log(&target),
            (true, Some("status")) if target.resource.has_status => match self.method {
                Method::GET => self.get(&target),
                _ => self.change(&target),
            },
            (_, Some(_)) => Err(Refusal::no_such_kind()),
            (true, None) => match self.method {
                Method::GET => self.get(&target),
                Method::DELETE => self.delete(&target),
                _ => self.change(&target),
            },
            (false, None) => match self.method {
                Method::GET if self.flag("watch") => self.watch(&target),
                Method::GET => self.list(&target),
                Method::POST => self.create(&target),
                _ => Err(not_allowed()),
            },
        }
    }

    fn flag(&self, name: &str) -> bool {
        self.parameters.get(name).is_some_and(|value| value == "true" || value == "1")
    }

    fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }

    fn unknown_fields(&self) -> UnknownFields {
        UnknownFields::parse(self.parameter("fieldValidation"))
    }

    fn selector(&self) -> Result<Selector, Refusal> {
        Selector::parse(self.parameter("labelSelector"), self.parameter("fieldSelector"))
            .map_err(Refusal::bad_request)
    }

    fn json(&self) -> Result<Value, Refusal> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Refusal::bad_request(format!("the object provided is unrecognized: {error}"))
        })
    }

    fn check_access(&self, target: &Target) -> Result<(), Refusal> {
        let verb = match (&self.method, target.name.is_some()) {
            (&Method::GET, true) => "get",
            (&Method::GET, false) if self.flag("watch") => "watch",
            (&Method::GET, false) => "list",
            (&Method::POST, _) => "create",
            (&Method::PUT, _) => "update",
            (&Method::PATCH, _) => "patch",
            (&Method::DELETE, true) => "delete",
            (&Method::DELETE, false) => "deletecollection",
            _ => return Err(not_allowed()),
        };
        let asked = Asked {
            verb,
            resource: &target.resource,
            sub: target.sub.as_deref(),
            namespace: &target.namespace,
            name: target.name.as_deref(),
        };
        self.shared.lock().owners.check(self.token(), &asked)
    }

    fn token(&self) -> Option<&str> {
        token(&self.headers)
    }

    /// A review of `kind`, which must be allowed like any other create.
    fn check_review(&self, group: &str, kind: &str, plural: &str) -> Result<(), Refusal> {
        let resource = Resource::of_cluster(group, "v1", kind, plural);
        let asked =
            Asked { verb: "create", resource: &resource, sub: None, namespace: "", name: None };
        self.shared.lock().owners.check(self.token(), &asked)
    }

    fn get(&self, target: &Target) -> Answer {
        let state = self.shared.lock();
        let name = target.full_name();
        match state.store.get(&target.resource, &name) {
            Some(object) => Ok(json_response(StatusCode::OK, object)),
            None => Err(Refusal::not_found(&target.resource, &name.1)),
        }
    }

    fn list(&self, target: &Target) -> Answer {
        let selector = self.selector()?;
        let state = self.shared.lock();
        let limit = self.parameter("limit").parse().unwrap_or(0);
        let from = match self.parameter("continue") {
            "" => None,
            token => Some(read_continue(token)?),
        };
        let version = from.as_ref().map_or(state.store.version, |from| from.version);
        if version < state.store.oldest {
            return Err(Refusal::expired());
        }
        let after = from.as_ref().map(|from| &from.after);
        let page = state.store.list(&target.resource, &target.namespace, &selector, after, limit);
        let next = page.next.map(|after| write_continue(&Continue { version, after }));
        let list = json!({
            "kind": format!("{}List", target.resource.kind),
            "apiVersion": target.resource.api_version(),
            "metadata": {"resourceVersion": version.to_string(), "continue": next.unwrap_or_default()},
            "items": page.items,
        });
        Ok(json_response(StatusCode::OK, &list))
    }

    fn watch(&self, target: &Target) -> Answer {
        const USUAL: u64 = 300;
        let selector = self.selector()?;
        let (mut first, from) = {
            let state = self.shared.lock();
            match self.parameter("resourceVersion") {
                "" | "0" => {
                    let page =
                        state.store.list(&target.resource, &target.namespace, &selector, None, 0);
                    let lines = page.items.iter().map(|one| watch::line("ADDED", one)).collect();
                    (lines, state.store.version)
                }
                text => {
                    let from = text.parse().map_err(|_| {
                        Refusal::bad_request(format!("Invalid value: {text:?}: resourceVersion"))
                    })?;
                    (String::new(), from)
                }
            }
        };
        if self.flag("sendInitialEvents") {
            let mut end = watch::bookmark(&target.resource, from);
            end["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
            first.push_str(&watch::line("BOOKMARK", &end));
        }
        let lasts = self.parameter("timeoutSeconds").parse().unwrap_or(USUAL);
        let watch = Watch {
            resource: target.resource.clone(),
            namespace: target.namespace.clone(),
            selector,
            from,
            bookmarks: self.flag("allowWatchBookmarks"),
            lasts: Duration::from_secs(lasts),
        };
        let first = futures::stream::iter([Ok(bytes::Bytes::from(first))]);
        let lines = watch::lines(Arc::clone(&self.shared), watch);
        let body = Body::from_stream(futures::StreamExt::chain(first, lines));
        Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
    }

    fn create(&self, target: &Target) -> Answer {
        let mut object = self.json()?;
        let resource = &target.resource;
        if object["kind"] != resource.kind.as_str()
            || object["apiVersion"] != resource.api_version().as_str()
        {
            return Err(Refusal::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}",
                object["kind"].as_str().unwrap_or_default(),
                object["apiVersion"].as_str().unwrap_or_default(),
                resource.kind,
            )));
        }
        let told = object["metadata"]["namespace"].as_str();
        if told.is_some_and(|told| told != target.namespace) {
            return Err(Refusal::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        let (created, warnings) = self.shared.write(|state| {
            state.check_namespace(target)?;
            let name = match object["metadata"]["name"].as_str() {
                Some(name) => name.to_owned(),
                None => match object["metadata"]["generateName"].as_str() {
                    Some(prefix) => format!("{prefix}{:05x}", state.store.version & 0xf_ffff),
                    None => {
                        let why = "Required value: name or generateName is required";
                        return Err(Refusal::invalid(resource, "", "metadata.name", why));
                    }
                },
            };
            check_metadata(resource, &name, &object)?;
            object["metadata"]["name"] = name.clone().into();
            if let Some(fields) = object.as_object_mut()
                && resource.has_status
            {
                fields.remove("status");
            }
            let warnings = state.hold(resource, &name, &mut object, self.unknown_fields())?;
            state.admit("CREATE", resource, None, &object)?;
            let now = (state.clock)();
            let name = (target.namespace.clone(), name);
            if *resource == definitions() {
                state.define(&mut object)?;
                let status = object["status"].take();
                let mut created = state.store.create(resource, &name, object, now)?;
                created["status"] = status;
                return Ok((state.store.replace(resource, &name, created, now)?, warnings));
            }
            Ok((state.store.create(resource, &name, object, now)?, warnings))
        })?;
        Ok(warned(json_response(StatusCode::CREATED, &created), &warnings))
    }

    /// PUT and PATCH, of the object or of its status.
    fn change(&self, target: &Target) -> Answer {
        let sent = self.json()?;
        let resource = &target.resource;
        let name = target.full_name();
        let (changed, warnings) = self.shared.write(|state| {
            let Some(before) = state.store.get(resource, &name).cloned() else {
                return Err(Refusal::not_found(resource, &name.1));
            };
            let mut after = match self.method {
                Method::PUT => sent,
                Method::PATCH => self.patched(&before, &sent)?,
                _ => return Err(not_allowed()),
            };
            check_preconditions(resource, &name.1, &before, &after)?;
            if resource.has_status {
                match target.sub {
                    // Each path writes its own half.
                    Some(_) => {
                        let mut whole = before.clone();
                        whole["status"] = after["status"].take();
                        whole["metadata"] = after["metadata"].take();
                        after = whole;
                    }
                    None => match before.get("status") {
                        Some(status) => after["status"] = status.clone(),
                        None => {
                            after.as_object_mut().map(|fields| fields.remove("status"));
                        }
                    },
                }
            }
            check_metadata(resource, &name.1, &after)?;
            let warnings = state.hold(resource, &name.1, &mut after, self.unknown_fields())?;
            if target.sub.is_none() {
                state.admit("UPDATE", resource, Some(&before), &after)?;
            }
            if *resource == definitions() {
                state.define(&mut after)?;
            }
            let now = (state.clock)();
            Ok((state.store.replace(resource, &name, after, now)?, warnings))
        })?;
        Ok(warned(json_response(StatusCode::OK, &changed), &warnings))
    }

    fn patched(&self, before: &Value, patch: &Value) -> Result<Value, Refusal> {
        let kind = self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let mut after = before.clone();
        match kind.unwrap_or_default().split(';').next().unwrap_or_default() {
            "application/merge-patch+json" => json_patch::merge(&mut after, patch),
            "application/json-patch+json" => {
                let patch: json_patch::Patch = serde_json::from_value(patch.clone())
                    .map_err(|error| Refusal::bad_request(error.to_string()))?;
                json_patch::patch(&mut after, &patch)
                    .map_err(|error| Refusal::new(422, "Invalid", error.to_string(), json!({})))?;
            }
            other => {
                let message = format!("the body of the request was in an unknown format: {other}");
                return Err(Refusal::new(415, "UnsupportedMediaType", message, json!({})));
            }
        }
        Ok(after)
    }

    fn delete(&self, target: &Target) -> Answer {
        let options = if self.body.is_empty() { json!({}) } else { self.json()? };
        let resource = &target.resource;
        let name = target.full_name();
        let deleted = self.shared.write(|state| {
            let Some(before) = state.store.get(resource, &name).cloned() else {
                return Err(Refusal::not_found(resource, &name.1));
            };
            let wanted = &options["preconditions"];
            for field in ["uid", "resourceVersion"] {
                let is = &before["metadata"][field];
                if wanted[field].is_string() && wanted[field] != *is {
                    let why = format!(
                        "the {field} in the precondition ({}) does not match the {field} in record ({is})",
                        wanted[field]
                    );
                    return Err(Refusal::conflict(resource, &name.1, &why));
                }
            }
            state.admit("DELETE", resource, Some(&before), &before)?;
            let now = (state.clock)();
            state.store.delete(resource, &name, now)
        })?;
        Ok(json_response(StatusCode::OK, &deleted))
    }

    fn log(&self, target: &Target) -> Answer {
        let name = target.full_name();
        {
            let state = self.shared.lock();
            if state.store.get(&target.resource, &name).is_none() {
                return Err(Refusal::not_found(&target.resource, &name.1));
            }
            if !self.flag("follow") {
                return state.said(&name.0, &name.1, &self.parameters);
            }
        }
        let container = self.parameter("container").to_owned();
        let log = logs::follow(Arc::clone(&self.shared), name, container);
        Ok(([(header::CONTENT_TYPE, "text/plain")], Body::from_stream(log)).into_response())
    }

    fn review_token(&self) -> Answer {
        self.check_review("authentication.k8s.io", "TokenReview", "tokenreviews")?;
        let mut review = self.json()?;
        let token = review["spec"]["token"].as_str().unwrap_or_default().to_owned();
        review["status"] = self.shared.lock().owners.review(&token);
        Ok(json_response(StatusCode::CREATED, &review))
    }

    fn review(&self) -> Answer {
        self.check_review("authorization.k8s.io", "SubjectAccessReview", "subjectaccessreviews")?;
        let mut review = self.json()?;
        review["status"] = self.shared.lock().owners.review_access(&review["spec"]);
        Ok(json_response(StatusCode::CREATED, &review))
    }
}

impl Target {
    fn full_name(&self) -> Name {
        (self.namespace.clone(), self.name.clone().unwrap_or_default())
    }
}

impl State {
    /// What a container has said.
    fn said(&self, namespace: &str, pod: &str, parameters: &Parameters) -> Answer {
        let parameter = |name: &str| parameters.get(name).map_or("", String::as_str);
        let container = parameter("container");
        let key = (namespace.to_owned(), pod.to_owned(), container.to_owned());
        let Some(text) = self.logs.get(&key) else {
            return Err(Refusal::bad_request(format!(
                "container {container} is not valid for pod {pod}"
            )));
        };
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let shown = match parameter("tailLines").parse::<usize>() {
            Ok(most) => lines[lines.len().saturating_sub(most)..].concat(),
            Err(_) => text.clone(),
        };
        Ok(([(header::CONTENT_TYPE, "text/plain")], shown).into_response())
    }

    fn check_namespace(&self, target: &Target) -> Result<(), Refusal> {
        if !target.resource.namespaced {
            return Ok(());
        }
        let namespaces = Resource::of_cluster("", "v1", "Namespace", "namespaces");
        match self.store.get(&namespaces, &(String::new(), target.namespace.clone())) {
            Some(_) => Ok(()),
            None => Err(Refusal::no_namespace(&target.namespace)),
        }
    }

    fn admit(
        &self,
        operation: &'static str,
        resource: &Resource,
        before: Option<&Value>,
        after: &Value,
    ) -> Result<(), Refusal> {
        let admission = Admission { resource, operation, before, after };
        self.hooks.iter().try_for_each(|hook| hook(&admission))
    }
}

fn check_preconditions(
    resource: &Resource,
    name: &str,
    before: &Value,
    after: &Value,
) -> Result<(), Refusal> {
    let (is, wanted) = (&before["metadata"], &after["metadata"]);
    if wanted["uid"].is_string() && wanted["uid"] != is["uid"] {
        let why = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            wanted["uid"].as_str().unwrap_or_default(),
            is["uid"].as_str().unwrap_or_default(),
        );
        return Err(Refusal::conflict(resource, name, &why));
    }
    if wanted["resourceVersion"].is_string() && wanted["resourceVersion"] != is["resourceVersion"] {
        return Err(Refusal::modified(resource, name));
    }
    if wanted["name"].is_string() && wanted["name"] != is["name"] {
        let message = "the name of the object does not match the name on the URL";
        return Err(Refusal::bad_request(message));
    }
    Ok(())
}

/// The rules of names, labels and annotations, which `workflows-k8s` knows for PipelineRuns.
fn check_metadata(resource: &Resource, name: &str, object: &Value) -> Result<(), Refusal> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let is_name = (1..=253).contains(&name.len())
        && name.chars().all(inner)
        && ends(name.chars().next())
        && ends(name.chars().next_back());
    if !is_name {
        let why = format!(
            "Invalid value: {name:?}: a lowercase RFC 1123 subdomain must consist of \
                           lower case alphanumeric characters, '-' or '.'"
        );
        return Err(Refusal::invalid(resource, name, "metadata.name", &why));
    }
    let checked = json!({
        "apiVersion": "tekton.dev/v1", "kind": "PipelineRun",
        "metadata": {
            "name": "x",
            "labels": object["metadata"]["labels"],
            "annotations": object["metadata"]["annotations"],
        },
    });
    match workflows_k8s::violations(&checked).first() {
        None => Ok(()),
        Some(found) => Err(Refusal::invalid(resource, name, &found.field, &found.message)),
    }
}

fn warned(mut response: Response, warnings: &[String]) -> Response {
    for warning in warnings {
        let text = format!("299 - {warning:?}");
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

fn not_allowed() -> Refusal {
    let message = "the server does not allow this method on the requested resource";
    Refusal::new(405, "MethodNotAllowed", message, json!({}))
}

fn write_continue(from: &Continue) -> String {
    let token = json!([from.version, from.after.0, from.after.1]);
    BASE64URL_NOPAD.encode(token.to_string().as_bytes())
}

fn read_continue(token: &str) -> Result<Continue, Refusal> {
    let read = || -> Option<Continue> {
        let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).ok()?;
        let (version, namespace, name) = serde_json::from_slice(&bytes).ok()?;
        Some(Continue { version, after: (namespace, name) })
    };
    read().ok_or_else(|| Refusal::bad_request("continue key is not valid"))
}
