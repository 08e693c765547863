//! What a suite is made of: named cases, and what one of them says when it fails.

use std::{error::Error as StdError, fmt};

use futures::future::BoxFuture;

/// One thing that every implementation must do, over a fixture that the implementation's author
/// writes. Each case gets a fixture of its own.
pub struct Case<F> {
    /// What must hold, as a sentence with underscores.
    pub name: &'static str,
    /// Finds out whether it does.
    pub run: fn(F) -> BoxFuture<'static, Result<(), Failure>>,
}

impl<F> fmt::Debug for Case<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Case").field(&self.name).finish()
    }
}

/// Why a case does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// A failure with these words.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: StdError> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(format!("an operation failed that should not: {error}"))
    }
}

/// Fails unless it holds.
///
/// # Errors
///
/// A [`Failure`] with what was said.
pub fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure(otherwise())) }
}

/// Fails unless both are the same.
///
/// # Errors
///
/// A [`Failure`] that shows both.
pub fn expect_eq<A, B>(what: &str, actual: &A, expected: &B) -> Result<(), Failure>
where
    A: PartialEq<B> + fmt::Debug,
    B: fmt::Debug,
{
    expect(actual == expected, || format!("{what}: expected {expected:?}, got {actual:?}"))
}

/// Fails unless the operation failed with this kind.
///
/// # Errors
///
/// A [`Failure`] that says what happened instead.
pub fn expect_kind<T: fmt::Debug>(
    what: &str,
    result: crate::Result<T>,
    kind: crate::ErrorKind,
) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => Err(Failure(format!(
            "{what}: expected an error of kind {kind:?}, got {:?}: {error}",
            error.kind()
        ))),
        Ok(value) => {
            Err(Failure(format!("{what}: expected an error of kind {kind:?}, got {value:?}")))
        }
    }
}

/// Runs every case, each over a fixture of its own, and returns those that fail.
pub async fn failures<F, M, Fut>(cases: &[Case<F>], make_fixture: M) -> Vec<(&'static str, Failure)>
where
    M: Fn() -> Fut,
    Fut: Future<Output = F>,
{
    let mut failures = Vec::new();
    for case in cases {
        if let Err(failure) = (case.run)(make_fixture().await).await {
            failures.push((case.name, failure));
        }
    }
    failures
}

/// Declares the cases of a suite: `cases()` for programs, and a macro that makes one `#[tokio::test]`
/// of each. The macro's expression makes a future of a fixture, or of an option of one: `None` skips
/// the case, and whoever gives it has said so aloud.
macro_rules! suite {
    (($d:tt) $(#[$doc:meta])* $macro_name:ident($fixture:ty) in $module:ident { $($case:ident,)+ }) => {
        /// The cases of the suite.
        pub fn cases() -> Vec<$crate::conformance::Case<$fixture>> {
            vec![$($crate::conformance::Case {
                name: stringify!($case),
                run: |fixture| Box::pin($case(fixture)),
            },)+]
        }

        $(#[$doc])*
        #[macro_export]
        macro_rules! $macro_name {
            ($d make_fixture:expr) => {
                $(
                    #[tokio::test]
                    async fn $case() {
                        use $d crate::conformance::$module as suite;
                        let case = suite::cases()
                            .into_iter()
                            .find(|case| case.name == stringify!($case))
                            .expect("the suite has the case that its macro names");
                        let fixture: Option<_> = $d make_fixture.await.into();
                        let Some(fixture) = fixture else { return };
                        if let Err(failure) = (case.run)(fixture).await {
                            panic!("{failure}");
                        }
                    }
                )+
            };
        }
    };
}
pub(crate) use suite;
