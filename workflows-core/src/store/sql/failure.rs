//! Why an operation came to nothing.

use crate::Error;

/// Why an operation of a batch came to nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It is refused, and has written nothing: the rest of the batch goes on.
    Refused(Error),
    /// The database failed: the whole batch is rolled back.
    Database(sqlx::Error),
    /// A row or a value has another shape than this program gives it: as `Database`.
    Shape(serde_json::Error),
}

pub(crate) type Done<T> = Result<T, Failure>;

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Shape(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl Failure {
    /// In words for who runs the program; `told` tells of the database's own failures, and `place`
    /// is where the ledger is.
    pub(crate) fn into_error(
        self,
        operation: &'static str,
        place: (&'static str, &dyn std::fmt::Display),
        told: impl FnOnce(sqlx::Error) -> Error,
    ) -> Error {
        match self {
            Self::Refused(error) => error,
            Self::Database(error) => told(error),
            Self::Shape(error) => Error::invalid(
                operation,
                "a value in the ledger is not what this program writes; was it written by another \
                 version?",
            )
            .with(place.0, place.1)
            .caused_by(error),
        }
    }
}
