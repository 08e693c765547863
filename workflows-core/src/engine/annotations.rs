//! What compilers and linters say in a log about lines of files.
//!
//! The forms are those of gcc, clang, Go, ESLint's `unix` and `stylish`, and most other tools
//! (`path:line:column: error: message`), of rustc (a message, then `--> path:line:column`), of
//! panics in Rust, and of TypeScript and MSVC (`path(line,column): error CODE: message`).
//!
//! GitHub's own workflow commands (`::error file=...::`) are not read: they are orders to the runner
//! of GitHub Actions, which tools give only when they find themselves there.
//!
//! A path counts that is relative and stays inside the repository. Whether there is such a file is
//! not looked up: hosts show an annotation of a file that is not there with the others.

use std::{collections::HashSet, sync::LazyLock};

use regex::{Captures, Regex};

use crate::run::{Annotation, AnnotationLevel};

/// The most annotations that are taken from one log.
pub(crate) const MOST: usize = 100;
/// A longer line is the data of a program rather than a word to people.
const LONGEST_LINE: usize = 2_000;
const LONGEST_PATH: usize = 255;
/// In bytes.
const LONGEST_MESSAGE: usize = 1_000;

#[derive(Debug)]
struct Forms {
    /// `src/a.c:3:7: error: message`, `a.go:3:7: message`, `a.py:3: warning: message`
    colons: Regex,
    /// `src/a.ts(3,7): error TS2322: message`
    parentheses: Regex,
    /// `error[E0308]: message`, of which the next line may tell the place
    headline: Regex,
    /// `  --> src/main.rs:3:7`
    arrow: Regex,
    /// `thread 'main' panicked at src/main.rs:3:7:`, whose message is the next line
    panic: Regex,
    /// `src/a.js`, of which the next lines may tell places
    file: Regex,
    /// `  3:7  error  message  rule`
    below_file: Regex,
}

impl Forms {
    fn new() -> Result<Self, regex::Error> {
        const PATH: &str = r"(?P<path>[\w.@+\-/\[\]()]+?)";
        const LEVEL: &str =
            r"(?P<level>fatal error|error|Error|ERROR|warning|Warning|WARNING|note|info|help)";
        let form = |pattern: String| Regex::new(&pattern);
        Ok(Self {
            colons: form(format!(
                r"^\s{{0,4}}{PATH}:(?P<line>\d{{1,7}})(?::(?P<column>\d{{1,5}}))?:\s+(?:{LEVEL}(?:\[[\w\-:]+\])?:\s*)?(?P<message>\S.*)$"
            ))?,
            parentheses: form(format!(
                r"^\s{{0,4}}{PATH}\((?P<line>\d{{1,7}})(?:,(?P<column>\d{{1,5}}))?\)\s?:\s+{LEVEL}\s+(?P<message>\S.*)$"
            ))?,
            headline: form(
                r"^(?P<level>error|warning)(?:\[[\w:\-]+\])?: (?P<message>\S.*)$".to_owned(),
            )?,
            arrow: form(format!(r"^\s*--> {PATH}:(?P<line>\d{{1,7}}):(?P<column>\d{{1,5}})$"))?,
            panic: form(format!(
                r"^thread '.*' (?:\(\d+\) )?panicked at {PATH}:(?P<line>\d{{1,7}}):(?P<column>\d{{1,5}}):$"
            ))?,
            file: form(format!(r"^{PATH}$"))?,
            below_file: form(format!(
                r"^\s+(?P<line>\d{{1,7}}):(?P<column>\d{{1,5}})\s+{LEVEL}\s+(?P<message>\S.*)$"
            ))?,
        })
    }
}

static FORMS: LazyLock<Option<Forms>> = LazyLock::new(|| Forms::new().ok());

/// The annotations in the lines of a log: each once, the errors first, else in the order of the log,
/// and no more than [`MOST`].
pub(crate) fn found_in<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Annotation> {
    let Some(forms) = &*FORMS else { return Vec::new() };
    let mut reading = Reading { forms, headline: None, panicked: None, file: None };
    let mut seen = HashSet::new();
    let mut found: [Vec<Annotation>; 3] = Default::default();
    for line in lines {
        let line = line.trim_end();
        let Some(annotation) = (line.len() <= LONGEST_LINE).then(|| reading.line(line)).flatten()
        else {
            continue;
        };
        let of_level = &mut found[annotation.level as usize];
        if of_level.len() < MOST && seen.insert(annotation.clone()) {
            of_level.push(annotation);
        }
    }
    found.into_iter().flatten().take(MOST).collect()
}

struct Reading<'a> {
    forms: &'a Forms,
    /// A message whose place may be on the next line.
    headline: Option<(AnnotationLevel, String)>,
    /// A place whose message is the next line.
    panicked: Option<Annotation>,
    /// A file of which the next lines may tell places.
    file: Option<String>,
}

impl Reading<'_> {
    fn line(&mut self, line: &str) -> Option<Annotation> {
        if let Some(mut panicked) = self.panicked.take() {
            panicked.message = message(line);
            return (!panicked.message.is_empty()).then_some(panicked);
        }
        let headline = self.headline.take();
        // The place of a message is told before anything else is.
        if let (Some((level, text)), Some(place)) = (headline, self.forms.arrow.captures(line)) {
            return annotation(&place, &place["path"], level, &text);
        }
        if let Some(found) = self.forms.headline.captures(line) {
            self.headline = Some((level_of(&found), found["message"].to_owned()));
            return None;
        }
        if let Some(found) = self.forms.panic.captures(line) {
            self.panicked =
                annotation(&found, &found["path"], AnnotationLevel::Failure, "it panicked");
            return None;
        }
        if let Some(file) = &self.file {
            if let Some(found) = self.forms.below_file.captures(line) {
                return annotation(&found, file, level_of(&found), &found["message"]);
            }
            self.file = None;
        }
        for form in [&self.forms.colons, &self.forms.parentheses] {
            if let Some(found) = form.captures(line) {
                let path = &found["path"];
                let has_place = found.name("level").or_else(|| found.name("column")).is_some();
                if !has_place && !is_source(path) {
                    return None;
                }
                return annotation(&found, path, level_of(&found), &found["message"]);
            }
        }
        if let Some(found) = self.forms.file.captures(line) {
            self.file = Some(found["path"].to_owned());
        }
        None
    }
}

/// A message without a word for its level is an error: the step that wrote it failed.
fn level_of(found: &Captures<'_>) -> AnnotationLevel {
    match found.name("level").map(|level| level.as_str().to_ascii_lowercase()).as_deref() {
        None | Some("error" | "fatal error") => AnnotationLevel::Failure,
        Some("warning") => AnnotationLevel::Warning,
        Some(_) => AnnotationLevel::Notice,
    }
}

fn annotation(
    place: &Captures<'_>,
    path: &str,
    level: AnnotationLevel,
    text: &str,
) -> Option<Annotation> {
    let number = |name: &str| -> Option<u32> {
        place.name(name)?.as_str().parse().ok().filter(|number| *number > 0)
    };
    let line = number("line")?;
    Some(Annotation {
        path: inside(path)?.into(),
        start_line: line,
        end_line: line,
        column: number("column"),
        level,
        message: message(text),
    })
}

fn message(text: &str) -> String {
    super::markdown::cut(text.trim(), LONGEST_MESSAGE)
}

/// The path as the repository has it, when it is relative, stays inside and looks like a file's.
fn inside(path: &str) -> Option<&str> {
    let path = path.strip_prefix("./").unwrap_or(path);
    let plain = path.split('/').all(|part| !matches!(part, "" | "." | ".." | ".git"));
    (plain && path.len() <= LONGEST_PATH && looks_like_a_file(path)).then_some(path)
}

/// An hour and a host's address stand before colons and numbers, too.
fn looks_like_a_file(path: &str) -> bool {
    const WITHOUT_EXTENSION: [&str; 5] =
        ["Makefile", "GNUmakefile", "Dockerfile", "Jenkinsfile", "Rakefile"];
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = extension(name);
    extension.starts_with(|c: char| c.is_ascii_alphabetic())
        && extension.len() <= 10
        && extension.chars().all(|c| c.is_ascii_alphanumeric())
        || WITHOUT_EXTENSION.contains(&name)
}

/// Whether a path is that of a program's source, where a message has neither a column nor a word for
/// its level: what a service says of `example.com:443` looks the same.
fn is_source(path: &str) -> bool {
    const SOURCES: [&str; 20] = [
        "c", "cc", "cpp", "cs", "ex", "exs", "go", "h", "hpp", "java", "js", "jsx", "kt", "php",
        "py", "rb", "rs", "swift", "ts", "tsx",
    ];
    SOURCES.contains(&extension(path))
}

fn extension(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(_, extension)| extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(log: &str) -> Vec<(String, u32, Option<u32>, AnnotationLevel, String)> {
        found_in(log.lines())
            .into_iter()
            .map(|one| (one.path.to_string(), one.start_line, one.column, one.level, one.message))
            .collect()
    }

    #[test]
    fn the_forms_are_patterns() {
        assert!(FORMS.is_some());
    }

    #[test]
    fn a_line_of_each_tool_is_read() {
        use AnnotationLevel::{Failure, Notice, Warning};
        for (log, path, line, column, level, message) in [
            ("src/a.c:3:7: error: expected ';'", "src/a.c", 3, Some(7), Failure, "expected ';'"),
            (
                "./src/a.c:3:7: warning: unused [-Wunused]",
                "src/a.c",
                3,
                Some(7),
                Warning,
                "unused [-Wunused]",
            ),
            (
                "a.c:3:7: fatal error: x.h: No such file",
                "a.c",
                3,
                Some(7),
                Failure,
                "x.h: No such file",
            ),
            ("a.c:3:7: note: declared here", "a.c", 3, Some(7), Notice, "declared here"),
            ("./main.go:10:5: undefined: x", "main.go", 10, Some(5), Failure, "undefined: x"),
            ("    foo_test.go:12: got 1", "foo_test.go", 12, None, Failure, "got 1"),
            (
                "Makefile:3: error: missing separator",
                "Makefile",
                3,
                None,
                Failure,
                "missing separator",
            ),
            (
                "src/app.ts(3,7): error TS2322: Type 'a'",
                "src/app.ts",
                3,
                Some(7),
                Failure,
                "TS2322: Type 'a'",
            ),
            (
                "pkg/m.py:4: error: Incompatible types  [assignment]",
                "pkg/m.py",
                4,
                None,
                Failure,
                "Incompatible types  [assignment]",
            ),
            ("app/[id]/page.tsx:4:1: error: x", "app/[id]/page.tsx", 4, Some(1), Failure, "x"),
        ] {
            let expected = vec![(path.to_owned(), line, column, level, message.to_owned())];
            assert_eq!(found(log), expected, "{log}");
        }
    }

    #[test]
    fn what_is_told_in_several_lines_is_put_together() {
        let log = "warning: unused variable: `x`\n  --> src/lib.rs:2:9\n   |\n\
                   error[E0308]: mismatched types\n  --> crates/a/src/main.rs:5:9\n\
                   error: aborting due to 1 previous error\n\n\
                   thread 'tests::it' (42) panicked at src/it.rs:7:5:\nassertion failed: x\n\
                   src/a.js\n  3:7  error  'x' is not defined  no-undef\n  4:1  warning  y  z\n";
        let places: Vec<_> = found(log).into_iter().map(|one| (one.0, one.1, one.4)).collect();
        let expected = [
            ("crates/a/src/main.rs", 5, "mismatched types"),
            ("src/it.rs", 7, "assertion failed: x"),
            ("src/a.js", 3, "'x' is not defined  no-undef"),
            ("src/lib.rs", 2, "unused variable: `x`"),
            ("src/a.js", 4, "y  z"),
        ];
        assert_eq!(
            places,
            expected.map(|(path, line, text)| (path.to_owned(), line, text.to_owned()))
        );
    }

    #[test]
    fn what_is_not_about_a_file_of_the_repository_is_left() {
        for line in [
            "/etc/passwd:1:1: error: x",
            "/usr/include/stdio.h:27:10: error: x",
            "../secret.c:1:1: error: x",
            "a/../../b.c:1:1: error: x",
            ".git/config:1:1: error: x",
            "C:\\src\\a.c:1:1: error: x",
            "a//b.c:1:1: error: x",
            "https://example.com:443: error: x",
            "12:30:59: starting",
            "2026-01-01T12:30:59: error: x",
            "localhost:8080: connection refused",
            "redis.default.svc:6379: connection refused",
            "127.0.0.1:80:1: error: x",
            "INFO main.go:3: starting",
            "a.c:0:0: error: x",
            "a.c:99999999999:1: error: x",
            "::error file=a.c,line=1::x",
            "error: could not compile",
            "  --> src/main.rs:5:9",
            "",
        ] {
            assert_eq!(found(line), [], "{line}");
        }
    }

    #[test]
    fn a_log_of_nothing_but_errors_is_bounded_and_each_is_told_once() {
        let mut log: String = (1..=500).map(|n| format!("w.c:{n}:1: warning: w\n")).collect();
        log.extend((1..=60).map(|n| format!("e.c:{n}:1: error: e\ne.c:{n}:1: error: e\n")));
        let found = found(&log);
        assert_eq!(found.len(), MOST);
        assert_eq!(found.iter().filter(|one| one.3 == AnnotationLevel::Failure).count(), 60);
        assert_eq!((found[0].1, found[59].1, found[60].1), (1, 60, 1));
    }

    #[test]
    fn hostile_lines_are_read_in_time_and_cut_between_characters() {
        let many_ends = "a.b ".repeat(499);
        assert!(found(&many_ends).is_empty());
        assert!(found(&"x".repeat(10 << 20)).is_empty());
        let long = format!("a.c:1:1: error: {}", "🦀".repeat(400));
        let message = &found(&long)[0].4;
        assert!(message.len() <= LONGEST_MESSAGE && message.ends_with("🦀…"), "{}", message.len());
    }
}
