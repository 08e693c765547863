//! What can go wrong with the file, in words for who runs the program.

use std::path::Path;

use crate::{Error, ErrorKind, store::sql::Failure};

pub(super) fn into_error(failure: Failure, operation: &'static str, path: &Path) -> Error {
    failure.into_error(operation, ("file", &path.display()), |error| {
        database_error(operation, path, error)
    })
}

// Primary result codes, https://www.sqlite.org/rescode.html
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READONLY: i32 = 8;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const NOTADB: i32 = 26;

pub(super) fn database_error(operation: &'static str, path: &Path, error: sqlx::Error) -> Error {
    let code = error
        .as_database_error()
        .and_then(|error| error.code())
        .and_then(|code| code.parse::<i32>().ok())
        .map(|extended| extended & 0xff);
    let (kind, message) = match code {
        Some(BUSY | LOCKED) => (
            ErrorKind::Transient,
            "another program holds a lock on the ledger's file for too long; end it, or let it \
             copy the file with `VACUUM INTO`",
        ),
        Some(READONLY) => (
            ErrorKind::Denied,
            "the ledger's file, or the directory that it is in, is read-only; make both writable",
        ),
        Some(CORRUPT) => (
            ErrorKind::Invalid,
            "the ledger's file is damaged; stop the program and restore it from a backup",
        ),
        Some(FULL) => {
            (ErrorKind::Transient, "the disk that the ledger's file is on is full; free some space")
        }
        Some(CANTOPEN) => (
            ErrorKind::NotFound,
            "the ledger's file cannot be opened or created; does its directory exist, and may it \
             be written?",
        ),
        Some(NOTADB) => (
            ErrorKind::Invalid,
            "the file is not a SQLite database; give the ledger a path of its own",
        ),
        _ => match &error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                (ErrorKind::Invalid, "a value in the ledger is not what this program writes")
            }
            _ => (ErrorKind::Transient, "the ledger's file could not be read or written"),
        },
    };
    Error::new(kind, operation, message).with("file", path.display()).caused_by(error)
}
