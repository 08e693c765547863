//! The error of a call that several waited for.

use std::sync::Arc;

use workflows_core::Error;

/// The same error for each of those who waited.
pub(crate) fn repeated(error: Arc<Error>) -> Error {
    Arc::try_unwrap(error).unwrap_or_else(|shared| {
        let copy = Error::new(shared.kind(), shared.operation().to_owned(), shared.message());
        let copy =
            shared.context().fold(copy, |copy, (name, value)| copy.with(name.to_owned(), value));
        copy.caused_by(shared)
    })
}
