//! The Secret that holds a run's clone credential.
//!
//! It is made before the PipelineRun, under a name from the run's, so that pods never wait for it,
//! and is owned by the PipelineRun as soon as that exists, so that it goes with it. What a crash in
//! between leaves is adopted or removed by [`sweep`](super::TektonSink::sweep).

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use secrecy::ExposeSecret;
use serde_json::json;
use workflows_core::{CloneCredential, Error, ErrorKind, Result, RunKey, Tenant};

use super::{
    MANAGER, TektonSink,
    identity::{Handle, RUN, RUN_KEY, TENANT, short},
};
use crate::error::from_kube;

/// The label of Secrets that hold the clone credential of a run.
pub(super) const CREDENTIAL: &str = "workflows.tekton.dev/credential";
/// The annotation that says until when the credential in it works.
const EXPIRES_AT: &str = "workflows.tekton.dev/expires-at";

/// The name of the Secret for a run of that name.
pub(super) fn secret_name(run: &str) -> String {
    format!("{run}-git")
}

/// Whose Secret it is.
#[derive(Debug)]
pub(super) struct Owner<'a> {
    pub(super) tenant: &'a Tenant,
    pub(super) key: &'a RunKey,
    /// The PipelineRun's name.
    pub(super) name: &'a str,
}

/// Makes the Secret hold this credential: creates it, or replaces what an earlier call wrote.
pub(super) async fn put(
    secrets: &Api<Secret>,
    owner: &Owner<'_>,
    credential: &CloneCredential,
    clone_url: &str,
    now: Timestamp,
) -> Result<()> {
    const OPERATION: &str = "write a run's credential";
    let secret = secret(owner, credential, clone_url)?;
    let name = secret.name_any();
    match secrets.create(&PostParams::default(), &secret).await {
        Ok(_) => return Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(from_kube(OPERATION, error, now)),
    }
    // A sweep removes the Secret of a run that has ended: then it is made anew the next time, and that
    // the run is there shows then.
    let told = |error| match from_kube(OPERATION, error, now) {
        gone if gone.kind() == ErrorKind::NotFound => {
            Error::conflict(OPERATION, "the Secret was removed meanwhile").caused_by(gone)
        }
        error => error,
    };
    let there = secrets.get(&name).await.map_err(told)?;
    if there.annotations().get(RUN_KEY).map(String::as_str) != Some(owner.key.as_str()) {
        return Err(Error::invalid(
            OPERATION,
            "there is a Secret of that name which is not this run's; remove or rename it",
        )
        .with("secret", name));
    }
    let patch = json!({
        "metadata": {
            "uid": there.metadata.uid,
            "annotations": secret.metadata.annotations,
        },
        "data": secret.data,
    });
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    secrets.patch(&name, &params, &Patch::Merge(&patch)).await.map(drop).map_err(told)
}

fn secret(owner: &Owner<'_>, credential: &CloneCredential, clone_url: &str) -> Result<Secret> {
    let files = credential.git_files(clone_url)?;
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let mut annotations = BTreeMap::from([
        (RUN_KEY.to_owned(), owner.key.as_str().to_owned()),
        (TENANT.to_owned(), owner.tenant.as_str().to_owned()),
    ]);
    if let Some(expires_at) = credential.expires_at {
        annotations.insert(EXPIRES_AT.to_owned(), expires_at.to_string());
    }
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(secret_name(owner.name)),
            labels: Some(BTreeMap::from([
                (CREDENTIAL.to_owned(), "clone".to_owned()),
                (RUN.to_owned(), short(owner.key)),
            ])),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from([
            (".gitconfig".to_owned(), bytes(&files.config)),
            (".git-credentials".to_owned(), bytes(files.credentials.expose_secret())),
            ("username".to_owned(), bytes(&credential.username)),
            ("token".to_owned(), bytes(credential.token.expose_secret())),
        ])),
        ..Secret::default()
    })
}

/// Makes the PipelineRun the Secret's owner, so that it is collected with it.
pub(super) async fn own(secrets: &Api<Secret>, run: &Handle, now: Timestamp) -> Result<()> {
    let owner = OwnerReference {
        api_version: run.api_version.clone(),
        kind: run.kind.clone(),
        name: run.name.clone(),
        uid: run.uid.clone(),
        controller: Some(false),
        block_owner_deletion: Some(false),
    };
    let patch = json!({"metadata": {"ownerReferences": [owner]}});
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match secrets.patch(&secret_name(&run.name), &params, &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(error) => Err(from_kube("give a run its credential", error, now)),
    }
}

/// The credential that a run was given last; `None` when it has none, or nobody here may see it.
pub(super) async fn given(
    secrets: &Api<Secret>,
    run: &str,
    key: &RunKey,
    now: Timestamp,
) -> Result<Option<CloneCredential>> {
    match secrets.get_opt(&secret_name(run)).await {
        Ok(secret) => Ok(secret.and_then(|secret| credential_in(&secret, key))),
        // Where no credentials are minted, none need be seen.
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
        Err(error) => Err(from_kube("read a run's credential", error, now)),
    }
}

fn credential_in(secret: &Secret, key: &RunKey) -> Option<CloneCredential> {
    let annotations = secret.annotations();
    if annotations.get(RUN_KEY).map(String::as_str) != Some(key.as_str()) {
        return None;
    }
    let text = |name: &str| std::str::from_utf8(&secret.data.as_ref()?.get(name)?.0).ok();
    Some(CloneCredential {
        username: text("username")?.into(),
        token: text("token")?.into(),
        expires_at: annotations.get(EXPIRES_AT).and_then(|at| at.parse().ok()),
    })
}

/// Removes the Secret of a run that is not created after all.
pub(super) async fn remove(secrets: &Api<Secret>, run: &str, now: Timestamp) -> Result<()> {
    match secrets.delete(&secret_name(run), &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(from_kube("remove a run's credential", error, now)),
    }
}

/// How long a Secret without an owner may wait for its PipelineRun.
const ORPHANED_AFTER: SignedDuration = SignedDuration::from_mins(15);

/// What [`sweep`](super::TektonSink::sweep) did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// Secrets that got the owner that a crash had kept from them.
    pub adopted: u32,
    /// Secrets that were removed: their run was never created, or has ended.
    pub removed: u32,
}

/// What a Secret's PipelineRun says about it.
pub(super) enum Fate {
    /// It lives.
    Needed(Handle),
    /// It has ended.
    Ended,
    /// It is not there.
    Missing,
}

/// Looks at every credential that `secrets` reaches, a page at a time.
pub(super) async fn sweep(
    sink: &TektonSink,
    secrets: &Api<Secret>,
    now: Timestamp,
) -> Result<Swept> {
    const OPERATION: &str = "sweep credentials of runs";
    let mut swept = Swept::default();
    let mut params = ListParams::default().labels(CREDENTIAL).limit(500);
    loop {
        let page = secrets.list(&params).await;
        let page = page.map_err(|error| from_kube(OPERATION, error, now))?;
        for secret in page.items {
            let name = secret.name_any();
            let Some(namespace) = secret.namespace() else { continue };
            let Some(run) = name.strip_suffix("-git") else { continue };
            let Some(key) = secret.annotations().get(RUN_KEY) else { continue };
            let here = sink.secrets(&namespace);
            match sink.fate(&namespace, run, &RunKey::from(key.clone())).await? {
                Fate::Needed(handle) if secret.owner_references().is_empty() => {
                    own(&here, &handle, now).await?;
                    swept.adopted += 1;
                }
                Fate::Needed(_) => {}
                Fate::Missing if is_young(&secret, now) => {}
                Fate::Ended | Fate::Missing => {
                    let uid = secret.metadata.uid.clone();
                    let only_this = Preconditions { uid, resource_version: None };
                    let params =
                        DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
                    match here.delete(&name, &params).await {
                        Ok(_) => swept.removed += 1,
                        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {}
                        Err(error) => return Err(from_kube(OPERATION, error, now)),
                    }
                }
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(swept),
        }
    }
}

fn is_young(secret: &Secret, now: Timestamp) -> bool {
    let created = secret.metadata.creation_timestamp.as_ref().map(|time| time.0);
    created.is_none_or(|created| now.duration_since(created) < ORPHANED_AFTER)
}

/// Whether a failure means that the run will not be created, now or later.
pub(super) fn is_final(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported)
}
