//! What can go wrong with the server, in words for who runs the program.

use crate::{Error, ErrorKind, store::sql::Failure};

pub(super) fn into_error(failure: Failure, operation: &'static str, place: &str) -> Error {
    failure.into_error(operation, ("database", &place), |error| {
        database_error(operation, place, error)
    })
}

/// Whether the connection is of no more use. What was asked on it may be asked again on another, as
/// long as the transaction was not being committed.
pub(super) fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // Connection exceptions; the server stops, has crashed, starts, or ended the session
            // (https://www.postgresql.org/docs/15/errcodes-appendix.html). A server that has become
            // read-only is one to leave, too: another has taken its place.
            code.starts_with("08")
                || ["57P01", "57P02", "57P03", "57P05", "25P03", "25006"].contains(&&*code)
        }),
        _ => false,
    }
}

/// Whether the same transaction may go through when it is tried again at once: it met another.
pub(super) fn met_another(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    // Serialization failure, deadlock, and a key that another transaction has just put in.
    code.is_some_and(|code| ["40001", "40P01", "23505"].contains(&&*code))
}

const NOT_PROTECTED: (ErrorKind, &str) = (
    ErrorKind::Denied,
    "the server's certificate is not accepted, or it offers no encryption; see the options `tls` and \
     `root_certificates`",
);

pub(super) fn database_error(operation: &'static str, place: &str, error: sqlx::Error) -> Error {
    let code = error.as_database_error().and_then(|error| error.code()).map(String::from);
    let (kind, message) = match &error {
        sqlx::Error::Database(_) => told_by_server(code.as_deref().unwrap_or_default()),
        sqlx::Error::Tls(_) => NOT_PROTECTED,
        // What rustls finds wrong in the handshake comes as an error of reading or writing.
        sqlx::Error::Io(error) if error.to_string().starts_with("invalid peer certificate") => {
            NOT_PROTECTED
        }
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => (
            ErrorKind::Transient,
            "the connection to the server was lost or cannot be made; is it up, and can it be \
             reached from here?",
        ),
        sqlx::Error::PoolTimedOut => (
            ErrorKind::Transient,
            "no connection in time: the server does not answer, or all `connections` are in use",
        ),
        sqlx::Error::PoolClosed => (ErrorKind::Transient, "the ledger is closed"),
        sqlx::Error::Configuration(_) => {
            (ErrorKind::Invalid, "the URL or an option of the connection is not accepted")
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
            (ErrorKind::Invalid, "a value in the ledger is not what this program writes")
        }
        _ => (ErrorKind::Transient, "the database could not be read or written"),
    };
    let mut told = Error::new(kind, operation, message).with("database", place);
    if let Some(code) = code {
        told = told.with("SQLSTATE", code);
    }
    told.caused_by(error)
}

fn told_by_server(code: &str) -> (ErrorKind, &'static str) {
    match code {
        "28P01" | "28000" => (
            ErrorKind::Denied,
            "the server does not accept the user or the password; check the URL, and the server's \
             pg_hba.conf",
        ),
        "42501" => (
            ErrorKind::Denied,
            "the user may not do this; it needs SELECT, INSERT, UPDATE and DELETE on the tables of \
             the schema and USAGE on its sequence, and CREATE to migrate it",
        ),
        "3D000" => (ErrorKind::NotFound, "there is no such database; create it"),
        "3F000" | "42P01" | "42703" => (
            ErrorKind::Invalid,
            "a table of the ledger is missing or has another shape; was it changed by hand?",
        ),
        "25006" => (
            ErrorKind::Transient,
            "the server is a read-only standby; let the URL lead to the primary",
        ),
        "53100" => (ErrorKind::Transient, "the server's disk is full; free some space on it"),
        "53200" => (ErrorKind::Transient, "the server is out of memory"),
        "53300" => (
            ErrorKind::Transient,
            "the server has too many connections; raise its max_connections, or lower \
             `connections`",
        ),
        "55P03" => (
            ErrorKind::Transient,
            "another transaction keeps a lock for longer than `lock_timeout`",
        ),
        "57014" => (
            ErrorKind::Transient,
            "the statement took longer than `statement_timeout`, or an administrator ended it",
        ),
        "57P01" | "57P02" | "57P05" => {
            (ErrorKind::Transient, "the server ended the connection: it stops or starts again")
        }
        "57P03" => (ErrorKind::Transient, "the server is starting or stopping"),
        "25P03" => (
            ErrorKind::Transient,
            "this program was silent in a transaction for longer than \
             `idle_in_transaction_timeout`, and the server ended it",
        ),
        "40001" | "40P01" | "23505" => (
            ErrorKind::Transient,
            "other transactions were in the way again and again; it can be tried later",
        ),
        "54000" => (ErrorKind::Invalid, "a name or key is too long for an index of Postgres"),
        "XX001" | "XX002" => (
            ErrorKind::Invalid,
            "the database is damaged; stop the program and restore it from a backup",
        ),
        _ if code.starts_with("08") => {
            (ErrorKind::Transient, "the connection to the server was lost")
        }
        _ => (ErrorKind::Transient, "the database could not be read or written"),
    }
}
