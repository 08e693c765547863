//! The Policy objects of a cluster, as the engine asks them: [`ClusterPolicy`].

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use async_trait::async_trait;
use jiff::SignedDuration;
use serde_json::Value;
use workflows_core::{
    DefaultPolicy, Error, Permission, Policy, RepoRef, Result, Tenant,
    matching::Pattern,
    policy::{Facts, FactsOrigin, PlannedRun, Request, Verdict},
    workflow::parse_duration,
};

use super::{
    asks::{Asks, Timeout, field_of},
    limited,
};
use crate::resources::{Allowed, DefinitionsFrom, NeededPermission, PolicySpec};

/// Judges by the Policy objects of the tenant's namespace, and by those of the platform's namespace
/// where there is one. Each policy that is about the repository must agree.
///
/// Until the objects have been read it answers with a `Transient` error, so that nothing runs that a
/// policy may forbid. A policy that cannot be understood forbids everything that it may be about.
#[derive(Debug)]
pub struct ClusterPolicy {
    platform: Option<Tenant>,
    default_sink: String,
    policies: RwLock<Option<BTreeMap<Tenant, Arc<[NamedPolicy]>>>>,
}

/// A Policy object.
#[derive(Debug)]
pub(super) struct NamedPolicy {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) generation: i64,
    /// `Err`: what is wrong with it.
    pub(super) rules: Result<Rules, String>,
}

/// What a Policy object says, ready to be asked.
#[derive(Debug)]
pub(super) struct Rules {
    repositories: Vec<Pattern>,
    spec: PolicySpec,
    timeout: Option<SignedDuration>,
}

impl Rules {
    pub(super) fn compile(spec: PolicySpec) -> Result<Self, String> {
        let told = |error: Error| error.to_string();
        let repositories = limited::compile(&spec.repositories).map_err(told)?;
        let of_registered = spec.registered.iter();
        for allowed in of_registered.chain([&spec.in_repository]) {
            for text in allowed.patterns() {
                Pattern::new(text)
                    .map_err(|problem| format!("{text:?} is no pattern: {problem}"))?;
            }
        }
        let timeout = spec.limits.as_ref().and_then(|limits| limits.timeout.as_deref());
        let timeout = timeout
            .map(|text| {
                parse_duration(text).map_err(|problem| format!("spec.limits.timeout: {problem}"))
            })
            .transpose()?;
        Ok(Self { repositories, spec, timeout })
    }

    fn is_about(&self, repo: &str) -> bool {
        self.repositories.is_empty()
            || self.repositories.iter().any(|pattern| pattern.matches(repo))
    }
}

impl Allowed {
    fn patterns(&self) -> impl Iterator<Item = &String> {
        [
            &self.service_accounts,
            &self.secrets,
            &self.config_maps,
            &self.volume_claims,
            &self.resolvers,
            &self.cluster_namespaces,
            &self.installed,
            &self.sinks,
            &self.notifiers,
        ]
        .into_iter()
        .flatten()
    }
}

impl ClusterPolicy {
    /// Policies of the cluster, those of `platform` for all tenants. `default_sink` is the sink of
    /// workflows that name none.
    pub(super) fn new(platform: Option<Tenant>, default_sink: String) -> Self {
        Self { platform, default_sink, policies: RwLock::default() }
    }

    /// The policies that there are now.
    pub(super) fn set(&self, policies: BTreeMap<Tenant, Arc<[NamedPolicy]>>) {
        *self.policies.write().unwrap_or_else(PoisonError::into_inner) = Some(policies);
    }

    /// Those that are about a tenant; `None` before they were read.
    fn of(&self, tenant: &Tenant) -> Option<Vec<(Tenant, Arc<[NamedPolicy]>)>> {
        let policies = self.policies.read().unwrap_or_else(PoisonError::into_inner);
        let all = policies.as_ref()?;
        let places = self.platform.iter().filter(|platform| *platform != tenant).chain([tenant]);
        let of = |place: &Tenant| Some((place.clone(), Arc::clone(all.get(place)?)));
        Some(places.filter_map(of).collect())
    }

    /// What the policies say of a Workflow object before any event: of all that it asks for by itself,
    /// whatever an event brings. `None` when none is about it for certain.
    pub(super) fn foretell(&self, tenant: &Tenant, document: &Value) -> Option<Verdict> {
        let spec = &document["spec"];
        let sink = spec["sink"].as_str().filter(|sink| *sink != self.default_sink);
        let notify = spec["notify"].as_array().into_iter().flatten();
        let wanted = Wanted {
            asks: Asks::of_document(document),
            own_secret: String::new(),
            sink,
            notifiers: notify.filter_map(|one| one["notifier"].as_str()).collect(),
            in_repository: false,
        };
        let repos = spec["repos"].as_array().into_iter().flatten();
        let repos: Vec<&str> = repos.filter_map(|one| one["repo"].as_str()).collect();
        let is_about = |rules: &Rules| {
            rules.repositories.is_empty() || repos.iter().any(|repo| rules.is_about(repo))
        };
        self.ask(tenant, is_about, |name, rules| wanted.judge_by(name, rules)).ok().flatten()
    }

    /// Asks each policy that is about something, and puts their answers together: a denial counts
    /// more than a wait, and that more than an approval. `None` when none is.
    fn ask(
        &self,
        tenant: &Tenant,
        is_about: impl Fn(&Rules) -> bool,
        each: impl Fn(&str, &Rules) -> Verdict,
    ) -> Result<Option<Verdict>> {
        let Some(policies) = self.of(tenant) else {
            return Err(Error::transient("judge by policy", "the policies were not read yet"));
        };
        let mut asked = false;
        let mut verdict = Verdict::Allow;
        for (place, policies) in &policies {
            for policy in policies.iter() {
                let name = format!("Policy {place}/{}", policy.name);
                let said = match &policy.rules {
                    Err(problem) => {
                        Verdict::Deny { rule: format!("{name} cannot be understood: {problem}") }
                    }
                    Ok(rules) if !is_about(rules) => continue,
                    Ok(rules) => each(&name, rules),
                };
                asked = true;
                verdict = match (verdict, said) {
                    (denied @ Verdict::Deny { .. }, _) => denied,
                    (_, denied @ Verdict::Deny { .. }) => denied,
                    (waits @ Verdict::Wait { .. }, _) => waits,
                    (_, said) => said,
                };
            }
        }
        Ok(asked.then_some(verdict))
    }
}

#[async_trait]
impl Policy for ClusterPolicy {
    async fn decide(&self, facts: &Facts) -> Result<Verdict> {
        let built_in = DefaultPolicy.decide(facts).await?;
        let verdict = self.ask(
            &facts.tenant,
            |rules| rules.is_about(&facts.repo.name),
            |name, rules| decide(name, rules, facts),
        )?;
        Ok(verdict.unwrap_or(built_in))
    }

    async fn judge(&self, run: &PlannedRun<'_>) -> Result<Verdict> {
        let name = run.pipeline_run["metadata"]["name"].as_str().unwrap_or_default();
        let wanted = Wanted {
            asks: Asks::of(run.pipeline_run),
            own_secret: format!("{name}-git"),
            sink: (run.sink != self.default_sink).then_some(run.sink),
            notifiers: run.notifiers.clone(),
            in_repository: run.in_repository,
        };
        let built_in = || match run.in_repository {
            true => wanted.judge("the built-in policy", &Allowed::default()),
            false => Verdict::Allow,
        };
        let verdict = self.ask(
            run.tenant,
            |rules| rules.is_about(&run.repo.name),
            |name, rules| wanted.judge_by(name, rules),
        )?;
        Ok(verdict.unwrap_or_else(built_in))
    }

    fn version(&self, tenant: &Tenant) -> String {
        let policies = self.of(tenant).unwrap_or_default();
        let names = policies.iter().flat_map(|(place, policies)| {
            policies.iter().map(move |one| {
                format!("{place}/{} uid {} generation {}", one.name, one.uid, one.generation)
            })
        });
        let all: Vec<String> = names.collect();
        if all.is_empty() { "built-in".to_owned() } else { all.join("; ") }
    }

    fn pins_definitions_to_base(&self, tenant: &Tenant, repo: &RepoRef) -> bool {
        // What is not known yet, or not understood, is read where less can go wrong.
        let Some(policies) = self.of(tenant) else { return true };
        policies.iter().flat_map(|(_, policies)| policies.iter()).any(|policy| {
            match &policy.rules {
                Err(_) => true,
                Ok(rules) => {
                    rules.is_about(&repo.name)
                        && rules.spec.approvals.definitions == DefinitionsFrom::Base
                }
            }
        })
    }
}

fn decide(policy: &str, rules: &Rules, facts: &Facts) -> Verdict {
    let approvals = &rules.spec.approvals;
    let can = |needed: NeededPermission| {
        let least = least(needed);
        facts.permission.zip(least).is_some_and(|(has, least)| has >= least)
    };
    let who = |needed: NeededPermission| match least(needed) {
        Some(_) => format!("those with {} access to {}", word(needed), facts.repo.name),
        None => "nobody".to_owned(),
    };
    match (&facts.origin, facts.request) {
        (FactsOrigin::OwnRef | FactsOrigin::Schedule | FactsOrigin::Caller { .. }, _)
        | (FactsOrigin::Source { .. }, Request::Run) => Verdict::Allow,
        (FactsOrigin::Fork { .. }, Request::Run) if can(approvals.trusted) => Verdict::Allow,
        (FactsOrigin::Fork { .. }, Request::Run) if facts.approval.is_some() => Verdict::Allow,
        (FactsOrigin::Fork { .. }, Request::Run) => match least(approvals.approvers) {
            Some(_) => Verdict::Wait { approvers: who(approvals.approvers) },
            None => Verdict::Deny {
                rule: format!("{policy}: nobody may approve pull requests from forks"),
            },
        },
        (_, _) if can(approvals.approvers) => Verdict::Allow,
        (_, _) => Verdict::Deny { rule: format!("{policy}: {} may", who(approvals.approvers)) },
    }
}

fn least(needed: NeededPermission) -> Option<Permission> {
    match needed {
        NeededPermission::Triage => Some(Permission::Triage),
        NeededPermission::Write => Some(Permission::Write),
        NeededPermission::Maintain => Some(Permission::Maintain),
        NeededPermission::Admin => Some(Permission::Admin),
        NeededPermission::Nobody => None,
    }
}

fn word(needed: NeededPermission) -> &'static str {
    match needed {
        NeededPermission::Triage => "triage",
        NeededPermission::Write => "write",
        NeededPermission::Maintain => "maintain",
        NeededPermission::Admin => "admin",
        NeededPermission::Nobody => "no",
    }
}

/// What a run wants, whoever plans it.
struct Wanted<'a> {
    asks: Asks,
    /// The Secret that is made for it, which it always may have.
    own_secret: String,
    /// The sink, when it is not the default one.
    sink: Option<&'a str>,
    notifiers: Vec<&'a str>,
    in_repository: bool,
}

impl Wanted<'_> {
    fn judge_by(&self, policy: &str, rules: &Rules) -> Verdict {
        let allowed = match self.in_repository {
            true => Some(&rules.spec.in_repository),
            false => rules.spec.registered.as_ref(),
        };
        let verdict = allowed.map_or(Verdict::Allow, |allowed| self.judge(policy, allowed));
        match (verdict, self.too_long(policy, rules)) {
            (Verdict::Allow, Some(rule)) => Verdict::Deny { rule },
            (verdict, _) => verdict,
        }
    }

    /// Which rule a run breaks that asks for more time than there is.
    fn too_long(&self, policy: &str, rules: &Rules) -> Option<String> {
        let most = rules.timeout?;
        let (wanted, field) = match &self.asks.timeout {
            Timeout::Asked(wanted) => (wanted.as_str(), "timeouts.pipeline"),
            Timeout::Default => (Timeout::TEKTONS, "timeouts.pipeline"),
            Timeout::None => {
                return Some(format!(
                    "{policy}: the run says nothing of the time that it may take, and at most {most:#} \
                     are allowed (spec.limits.timeout); set its spec.timeout"
                ));
            }
        };
        let is_within = parse_duration(wanted)
            .is_ok_and(|wanted| !wanted.is_zero() && !wanted.is_negative() && wanted <= most);
        (!is_within).then(|| {
            format!(
                "{policy}: the run may take {wanted}, and at most {most:#} are allowed \
                 (spec.limits.timeout); set {field}"
            )
        })
    }

    /// Judges by what is allowed.
    fn judge(&self, policy: &str, allowed: &Allowed) -> Verdict {
        let asks = &self.asks;
        let secrets = asks.secrets.iter().map(String::as_str);
        let secrets: Vec<&str> = secrets.filter(|name| *name != self.own_secret).collect();
        let by_name: [(&str, &str, Vec<&str>, &[String]); 9] = [
            (
                "service account",
                "serviceAccounts",
                all(&asks.service_accounts),
                &allowed.service_accounts,
            ),
            ("secret", "secrets", secrets, &allowed.secrets),
            ("config map", "configMaps", all(&asks.config_maps), &allowed.config_maps),
            ("volume claim", "volumeClaims", all(&asks.volume_claims), &allowed.volume_claims),
            ("resolver", "resolvers", all(&asks.resolvers), &allowed.resolvers),
            (
                "namespace of the resolver cluster",
                "clusterNamespaces",
                all(&asks.cluster_namespaces),
                &allowed.cluster_namespaces,
            ),
            ("pipeline or task", "installed", all(&asks.installed), &allowed.installed),
            ("sink", "sinks", self.sink.into_iter().collect(), &allowed.sinks),
            ("notifier", "notifiers", self.notifiers.clone(), &allowed.notifiers),
        ];
        for (what, field, names, patterns) in by_name {
            if let Some(name) = names.into_iter().find(|name| !matches(patterns, name)) {
                return self.deny(policy, &format!("the {what} {name:?}"), field);
            }
        }
        if let Some(source) = asks
            .sources
            .iter()
            .find(|source| !allowed.workspaces.iter().any(|one| field_of(*one) == **source))
        {
            return self.deny(policy, &format!("{source} for a workspace or volume"), "workspaces");
        }
        if let Some(kind) = asks.other_volumes.first() {
            let rule = format!("{policy}: no policy can allow a volume of {kind}");
            return Verdict::Deny { rule };
        }
        if asks.pod_template && !allowed.pod_template {
            return self.deny(policy, "a pod template", "podTemplate");
        }
        Verdict::Allow
    }

    fn deny(&self, policy: &str, what: &str, field: &str) -> Verdict {
        let (whose, part) = match self.in_repository {
            true => ("a workflow of a repository", "inRepository"),
            false => ("a registered workflow", "registered"),
        };
        let rule = format!(
            "{policy}: {whose} asks for {what}, which is not allowed (spec.{part}.{field})"
        );
        Verdict::Deny { rule }
    }
}

fn all(names: &std::collections::BTreeSet<String>) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// Whether a pattern allows a name. A name that Tekton puts together when the run goes on is only
/// allowed where every name is.
fn matches(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|text| {
        let is_any = text == "*" || text == "**";
        is_any
            || (!name.contains("$(")
                && Pattern::new(text).is_ok_and(|pattern| pattern.matches(name)))
    })
}

#[cfg(test)]
mod tests;
