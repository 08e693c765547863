//! The rules of triggers.

use std::collections::BTreeSet;

use super::{Problems, git_ref, names};
use crate::{
    EventKind,
    matching::CompiledTrigger,
    workflow::{
        cron::parse_cron,
        document::{AsOf, Patterns, Schedule, Trigger},
        load::LoadContext,
        problem::{Problem, did_you_mean, nearest, shown},
    },
};

/// The built-in kinds that a trigger can be for.
static KINDS: [EventKind; 7] = [
    EventKind::PUSH,
    EventKind::TAG,
    EventKind::PULL_REQUEST,
    EventKind::LABEL,
    EventKind::COMMENT,
    EventKind::SCHEDULE,
    EventKind::MANUAL,
];

/// The actions that events of a built-in kind have; `None` for custom kinds, which have their own.
fn actions_of(kind: &EventKind) -> Option<&'static [&'static str]> {
    Some(match kind.as_str() {
        "push" | "tag" => &["created", "updated", "forced"],
        "pull_request" => {
            &["opened", "updated", "reopened", "retargeted", "ready", "drafted", "closed", "merged"]
        }
        "label" => &["labeled", "unlabeled"],
        "comment" => &["created"],
        "schedule" | "manual" => &[],
        _ => return None,
    })
}

pub(super) fn check(triggers: &[Trigger], context: &LoadContext, problems: &mut Problems) {
    if triggers.is_empty() {
        problems.add_with(
            "spec.triggers",
            "nothing would ever start it",
            "name at least one trigger, such as { name: push, on: push }",
        );
    }
    let mut seen = BTreeSet::new();
    for (index, trigger) in triggers.iter().enumerate() {
        let field = format!("spec.triggers[{index}]");
        if !names::is_label(&trigger.name) {
            problems.add_with(
                format!("{field}.name"),
                format!("{} cannot be a trigger's name", shown(&trigger.name)),
                names::LABEL,
            );
        }
        if !seen.insert(&*trigger.name) {
            problems.add_with(
                format!("{field}.name"),
                format!("another trigger is named {}", shown(&trigger.name)),
                "rename one of them",
            );
        }
        if kind(&field, &trigger.on, context, problems) {
            actions(&field, trigger, problems);
            applicable(&field, trigger, problems);
        }
        contents(&field, trigger, context, problems);
    }
}

fn kind(field: &str, on: &EventKind, context: &LoadContext, problems: &mut Problems) -> bool {
    if KINDS.contains(on) {
        return true;
    }
    let name = on.as_str();
    let built_in = || KINDS.iter().map(EventKind::as_str);
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-./".contains(c);
    let well_formed = name.len() <= 100
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(inner);
    let known = context.custom_kinds.as_ref().map(|kinds| kinds.contains(name));
    let custom = known.unwrap_or_else(|| well_formed && nearest(name, built_in()).is_none());
    if *on == EventKind::COMMAND || !custom {
        let mut kinds: Vec<&str> = built_in().collect();
        kinds.extend(context.custom_kinds.iter().flatten().map(String::as_str));
        let meant = did_you_mean(name, kinds.iter().copied());
        problems.add_with(
            format!("{field}.on"),
            format!("there are no events of the kind {}{meant}", shown(name)),
            format!("known kinds: {}", kinds.join(", ")),
        );
        return false;
    }
    true
}

fn actions(field: &str, trigger: &Trigger, problems: &mut Problems) {
    let Some(allowed) = actions_of(&trigger.on) else { return };
    for (index, action) in trigger.actions.iter().enumerate() {
        if allowed.contains(&&**action) {
            continue;
        }
        let meant = did_you_mean(action, allowed.iter().copied());
        let help = if allowed.is_empty() {
            "leave `actions` out".to_owned()
        } else if &**action == "deleted" {
            format!("nothing can run for a ref that is gone; known actions: {}", allowed.join(", "))
        } else {
            format!("known actions: {}", allowed.join(", "))
        };
        problems.add_with(
            format!("{field}.actions[{index}]"),
            format!("events of the kind {} have no action {}{meant}", trigger.on, shown(action)),
            help,
        );
    }
}

/// Refuses filters that could never say yes or no to an event of the trigger's kind.
fn applicable(field: &str, trigger: &Trigger, problems: &mut Problems) {
    let on = trigger.on.as_str();
    let custom = !trigger.on.is_built_in();
    let given = [
        (
            "branches",
            trigger.branches.is_some(),
            &["push", "pull_request", "label", "comment"] as &[&str],
        ),
        ("tags", trigger.tags.is_some(), &["tag"]),
        ("paths", trigger.paths.is_some(), &["push", "pull_request", "label", "comment"]),
        ("labels", !trigger.labels.is_empty(), &["label", "pull_request", "comment"]),
        ("command", trigger.command.is_some(), &["comment"]),
        ("schedule", trigger.schedule.is_some(), &["schedule"]),
    ];
    for (name, given, kinds) in given {
        // A platform's own events may have a branch, files and labels, and are no slots or comments.
        let may = custom && !matches!(name, "command" | "schedule");
        if given && !may && !kinds.contains(&on) {
            let help = match (name, on) {
                ("branches", "tag") => "use `tags`".to_owned(),
                ("tags", "push") => "use `on: tag`".to_owned(),
                ("branches", "schedule") => "use `schedule.ref`".to_owned(),
                _ => format!("it has a meaning with on: {}", kinds.join(", ")),
            };
            problems.add_with(
                format!("{field}.{name}"),
                format!("`{name}` has no meaning for events of the kind {on}"),
                help,
            );
        }
    }
    if on == "schedule" && trigger.schedule.is_none() {
        problems.add_with(
            field,
            "a trigger with `on: schedule` says when",
            "add `schedule: { cron: \"0 3 * * *\" }`",
        );
    }
}

fn contents(field: &str, trigger: &Trigger, context: &LoadContext, problems: &mut Problems) {
    if let Some(schedule) = &trigger.schedule {
        self::schedule(&format!("{field}.schedule"), schedule, problems);
    }
    for (name, patterns) in [("branches", &trigger.branches), ("tags", &trigger.tags)] {
        if let Some(patterns) = patterns {
            empty_lists(&format!("{field}.{name}"), patterns, problems);
        }
    }
    if let Some(paths) = &trigger.paths
        && paths.include.is_empty()
        && paths.exclude.is_empty()
    {
        problems.add_with(
            format!("{field}.paths"),
            "it includes and excludes nothing",
            "name patterns in include or exclude, or leave `paths` out",
        );
    }
    for (index, label) in trigger.labels.iter().enumerate() {
        if label.is_empty() {
            problems.add(format!("{field}.labels[{index}]"), "no label has an empty name");
        }
    }
    if let Some(filter) = &trigger.custom_filter {
        problems.known(
            &format!("{field}.customFilter"),
            "filter",
            filter,
            context.custom_filters.as_ref(),
        );
    }
}

/// Compiles the triggers, and tells what is wrong with their patterns, commands and expressions.
pub(crate) fn compile(triggers: &[Trigger], problems: &mut Vec<Problem>) -> Vec<CompiledTrigger> {
    let mut compiled = Vec::with_capacity(triggers.len());
    for (index, trigger) in triggers.iter().enumerate() {
        match CompiledTrigger::compile(trigger) {
            Ok(compiled_trigger) => {
                let filter = format!("spec.triggers[{index}].filter");
                let kind = compiled_trigger.kind().clone();
                problems.extend(absent(&compiled_trigger).map(|path| {
                    Problem::at(
                        filter.clone(),
                        format!(
                            "the filter names `{path}`, which events of the kind {kind} never have"
                        ),
                    )
                }));
                compiled.push(compiled_trigger);
            }
            Err(found) => problems.extend(found.into_iter().map(|problem| {
                let field = as_written(trigger, &problem.field);
                Problem::at(format!("spec.triggers[{index}].{field}"), problem.message)
            })),
        }
    }
    compiled
}

/// What a filter names that no event of the trigger's kind has.
fn absent(trigger: &CompiledTrigger) -> impl Iterator<Item = &str> {
    let kind = trigger.kind();
    let absent: &[&str] = match kind {
        kind if *kind == EventKind::SCHEDULE => &["pull_request", "label", "comment", "sender"],
        kind if [EventKind::PUSH, EventKind::TAG, EventKind::MANUAL].contains(kind) => {
            &["pull_request", "label", "comment"]
        }
        kind if *kind == EventKind::PULL_REQUEST => &["label", "comment"],
        kind if *kind == EventKind::LABEL => &["comment"],
        kind if *kind == EventKind::COMMENT => &["label"],
        _ => &[],
    };
    let nobody_sent = [EventKind::SCHEDULE, EventKind::MANUAL].contains(kind);
    trigger.expressions().iter().flat_map(move |expression| {
        let needs = expression.needs();
        let payload = [("body", needs.body), ("headers", needs.headers)];
        let payload = payload.map(|(name, named)| (name, named && nobody_sent));
        let of_event = expression.paths().iter().map(|path| &**path).filter(|path| {
            let mut names = path.split('.');
            names.next() == Some("event") && names.next().is_some_and(|name| absent.contains(&name))
        });
        payload.into_iter().filter_map(|(name, named)| named.then_some(name)).chain(of_event)
    })
}

/// The field as it stands in the document: the short form of patterns has no `include`.
fn as_written(trigger: &Trigger, field: &str) -> String {
    for (name, patterns) in [("branches", &trigger.branches), ("tags", &trigger.tags)] {
        let short = matches!(patterns, Some(Patterns::Include(_)));
        let rest = field.strip_prefix(name).and_then(|rest| rest.strip_prefix(".include"));
        if let Some(rest) = rest
            && short
        {
            return format!("{name}{rest}");
        }
    }
    field.to_owned()
}

fn empty_lists(field: &str, patterns: &Patterns, problems: &mut Problems) {
    if patterns.include().is_empty() && patterns.exclude().is_empty() {
        problems.add_with(
            field,
            "it includes and excludes nothing",
            "name patterns, or leave the field out",
        );
    }
}

fn schedule(field: &str, schedule: &Schedule, problems: &mut Problems) {
    if let Err(message) = parse_cron(&schedule.cron) {
        problems.add_with(
            format!("{field}.cron"),
            format!("{}: {message}", shown(&schedule.cron)),
            "five fields: minute, hour, day of month, month, day of week, such as \"0 3 * * 1-5\"; \
             or @hourly, @daily, @weekly, @monthly, @yearly",
        );
    }
    if let Some(zone) = &schedule.time_zone
        && zone.parse::<chrono_tz::Tz>().is_err()
    {
        let meant = did_you_mean(zone, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()));
        problems.add_with(
            format!("{field}.timeZone"),
            format!("there is no time zone {}{meant}", shown(zone)),
            "an IANA name such as Europe/Paris or UTC",
        );
    }
    if let Some(reference) = &schedule.reference {
        git_ref(&format!("{field}.ref"), reference, problems);
    }
    match &schedule.as_of {
        Some(AsOf::Age(age)) => problems.duration(&format!("{field}.asOf"), age),
        Some(AsOf::Succeeded(succeeded)) => {
            if !names::is_subdomain(&succeeded.succeeded_in, 63) {
                problems.add_with(
                    format!("{field}.asOf.succeededIn"),
                    format!("{} cannot be a workflow's name", shown(&succeeded.succeeded_in)),
                    names::SUBDOMAIN,
                );
            }
            if let Some(age) = &succeeded.age {
                problems.duration(&format!("{field}.asOf.age"), age);
            }
        }
        None => {}
    }
    if let Some(deadline) = &schedule.starting_deadline {
        problems.duration(&format!("{field}.startingDeadline"), deadline);
    }
}
