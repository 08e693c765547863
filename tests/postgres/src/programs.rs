//! Where Postgres' programs are.

use std::path::{Path, PathBuf};

/// Where systems put the programs of each version, which are seldom on the `PATH`.
const PLACES: &[(&str, &str)] = &[
    ("/usr/lib/postgresql", "bin"),
    ("/usr", "bin"),
    ("/opt/homebrew/opt", "bin"),
    ("/usr/local/opt", "bin"),
    ("/usr/local", "bin"),
];

/// The directory of the newest version that is installed.
pub(crate) fn newest() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).find(|directory| is_complete(directory)).or_else(|| {
        let mut found: Vec<(u32, PathBuf)> = PLACES
            .iter()
            .flat_map(|(parent, below)| {
                let versions = std::fs::read_dir(parent).into_iter().flatten().flatten();
                versions.filter_map(move |version| {
                    let name = version.file_name().into_string().ok()?;
                    let number = name.trim_start_matches(|one: char| !one.is_ascii_digit());
                    let number = number.split('.').next()?.parse().ok()?;
                    Some((number, version.path().join(below)))
                })
            })
            .filter(|(_, directory)| is_complete(directory))
            .collect();
        found.sort();
        found.pop().map(|(_, directory)| directory)
    })
}

fn is_complete(directory: &Path) -> bool {
    ["initdb", "pg_basebackup", "postgres"].iter().all(|program| directory.join(program).is_file())
}
