//! What people see: headings, commands, the archive as a table.

use std::io::IsTerminal;

use comfy_table::{Table, presets};
use jiff::tz::TimeZone;
use workflows::{Run, core::store::StatusRecord};

/// Whether somebody looks.
pub(crate) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// A heading for the next part.
pub(crate) fn heading(text: &str) {
    if is_terminal() {
        println!("\n\u{1b}[1m{text}\u{1b}[0m");
    } else {
        println!("\n{text}");
    }
}

/// Something said below a heading.
pub(crate) fn note(text: &str) {
    println!("  {text}");
}

/// A text of several lines, set in.
pub(crate) fn block(text: &str) {
    for line in text.lines() {
        println!("  {line}");
    }
}

/// The archive: runs, newest first.
pub(crate) fn archive(runs: &[Run]) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["run", "workflow", "commit", "ref", "state", "took", "why"]);
    for run in runs {
        let commit = run.commit.as_ref().map_or("", |commit| commit.short());
        let reference = run.reference.as_deref().unwrap_or("");
        let branch = reference.strip_prefix("refs/heads/").unwrap_or(reference);
        let took = match (run.started_at, run.finished_at) {
            (Some(from), Some(to)) => format!("{:.1}s", to.duration_since(from).as_secs_f64()),
            _ => String::new(),
        };
        table.add_row([
            run.key.short(),
            &format!("{}/{}", run.workflow.name, run.trigger),
            commit,
            branch,
            run.state.as_str(),
            &took,
            &run.message,
        ]);
    }
    block(&table.to_string());
}

/// What commits should show.
pub(crate) fn statuses(statuses: &[StatusRecord], runs: &[Run]) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["commit", "context", "shows", "since"]);
    for status in statuses {
        let key = &status.desire.key;
        let shows = match &status.desire.subject {
            workflows::core::store::StatusSubject::Run { run } => {
                let run = runs.iter().find(|one| one.key == *run);
                run.map_or_else(String::new, |run| run.state.to_string())
            }
            workflows::core::store::StatusSubject::Note { title, .. } => title.clone(),
        };
        let since = status.updated_at.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string();
        table.add_row([key.commit.short(), &key.context, &shows, &since]);
    }
    block(&table.to_string());
}
