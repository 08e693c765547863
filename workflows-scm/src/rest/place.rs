//! Places in a repository.

use workflows_core::{Error, Result, repo::ReadLimit};

use super::is_dots;

/// A path without slashes at its ends.
pub(crate) fn normal(operation: &'static str, path: &str) -> Result<String> {
    let path = path.trim_matches('/');
    let is_step = |part: &str| part.is_empty() || is_dots(part);
    if !path.is_empty() && path.split('/').any(is_step) || path.contains('\0') {
        return Err(Error::invalid(operation, "a path has no empty parts, no '.' and no '..'")
            .with("path", crate::printable::printable(path)));
    }
    Ok(path.to_owned())
}

/// A path below a directory, which is empty for the root.
pub(crate) fn joined(directory: &str, name: &str) -> String {
    match directory {
        "" => name.to_owned(),
        directory => format!("{directory}/{name}"),
    }
}

pub(crate) fn too_many(most: usize) -> Error {
    Error::invalid("list directory", format!("there are more than {most} entries"))
}

pub(crate) fn too_large(operation: &'static str, size: usize, limit: ReadLimit) -> Error {
    Error::invalid(
        operation,
        format!("the file has {size} bytes, more than the {} allowed", limit.max_bytes),
    )
}
