//! Patterns of names: branches, tags, files, repositories.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use globset::{GlobBuilder, GlobMatcher};

use super::Problem;

/// A pattern of names whose parts are divided by `/`: branches, tags, files, repositories.
///
/// | in a pattern | stands for |
/// | --- | --- |
/// | `*` | any characters, also none, but not `/` |
/// | `?` | one character, but not `/` |
/// | `**` | as a whole part: any parts, also none |
/// | `[abc]`, `[a-z]`, `[!abc]` | one character (not) of these, and never `/` |
/// | `{a,b}` | one of these |
/// | `\` | before one of the above: the character itself |
///
/// So `release/*` is for `release/1` and not for `release/1/2`, which `release/**` is for as well;
/// `**` alone is for every name; `*.md` is for files at the top, and `**/*.md` for files anywhere.
/// A pattern without any of these characters is for the one name that it spells.
///
/// ```
/// use workflows_core::matching::Pattern;
///
/// let pattern = Pattern::new("release/*").unwrap();
/// assert!(pattern.matches("release/1"));
/// assert!(!pattern.matches("release/1/2"));
/// assert_eq!(pattern.literal_prefix(), "release/");
/// ```
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    form: Form,
}

/// The forms that most patterns have are matched by comparing text. A compiled glob is larger by
/// a thousand times, so it is made when a name first needs it.
#[derive(Clone)]
enum Form {
    /// Spells one name.
    Exact,
    /// `**`.
    All,
    /// `<prefix>*`: the rest holds no `/`. The number is the prefix's length.
    OneMore(usize),
    /// `<prefix>/**`: there is a rest. The number is the prefix's length with the `/`.
    Below(usize),
    /// `**/*<suffix>`: anything that ends so. The number is where the suffix begins.
    Ending(usize),
    /// Anything else.
    Glob(Arc<OnceLock<Option<GlobMatcher>>>),
}

impl Pattern {
    /// The longest pattern, in bytes.
    pub const MAX_LENGTH: usize = 512;
    /// The most wildcards, classes and alternatives in one pattern.
    pub const MAX_SPECIALS: usize = 32;

    /// Compiles a pattern.
    ///
    /// # Errors
    ///
    /// What is wrong with it and what to write instead.
    pub fn new(text: &str) -> Result<Self, String> {
        check(text)?;
        Self::compile(text)
    }

    /// Compiles a pattern of repositories, whose names may be addresses: one may begin with `/`.
    ///
    /// # Errors
    ///
    /// What is wrong with it and what to write instead.
    pub fn of_repository(text: &str) -> Result<Self, String> {
        check(text.strip_prefix('/').unwrap_or(text))?;
        Self::compile(text)
    }

    fn compile(text: &str) -> Result<Self, String> {
        let form = match special_at(text) {
            None => Form::Exact,
            Some(_) if text == "**" => Form::All,
            Some(at) if at + 1 == text.len() && text.ends_with('*') => Form::OneMore(at),
            Some(at) if &text[at..] == "**" && text[..at].ends_with('/') => Form::Below(at),
            Some(0) if text.starts_with("**/*") && special_at(&text[4..]).is_none() => {
                Form::Ending(4)
            }
            Some(_) => {
                // Whether it is well-formed is found out now; the automaton is built when a name
                // comes that needs it.
                glob(text)?;
                Form::Glob(Arc::default())
            }
        };
        Ok(Self { text: text.into(), form })
    }

    /// Whether a name is one of those that the pattern is for.
    pub fn matches(&self, name: &str) -> bool {
        let text = &*self.text;
        match &self.form {
            Form::Exact => name == text,
            Form::All => true,
            Form::OneMore(prefix) => {
                name.strip_prefix(&text[..*prefix]).is_some_and(|rest| !rest.contains('/'))
            }
            Form::Below(prefix) => {
                name.strip_prefix(&text[..*prefix]).is_some_and(|rest| !rest.is_empty())
            }
            Form::Ending(suffix) => name.ends_with(&text[*suffix..]),
            Form::Glob(compiled) => compiled
                .get_or_init(|| glob(text).ok().map(|glob| glob.compile_matcher()))
                .as_ref()
                .is_some_and(|glob| glob.is_match(name)),
        }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What every name begins with that the pattern is for: the pattern up to its first special
    /// character.
    pub fn literal_prefix(&self) -> &str {
        &self.text[..special_at(&self.text).unwrap_or(self.text.len())]
    }

    /// The one name that the pattern is for, when it has no special character.
    pub fn as_literal(&self) -> Option<&str> {
        matches!(self.form, Form::Exact).then_some(&*self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

fn special_at(text: &str) -> Option<usize> {
    text.find(['*', '?', '[', ']', '{', '}', '\\'])
}

fn check(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("an empty pattern is for nothing; write `**` for everything".to_owned());
    }
    if text.len() > Pattern::MAX_LENGTH {
        return Err(format!(
            "a pattern has at most {} bytes, and this one {}",
            Pattern::MAX_LENGTH,
            text.len()
        ));
    }
    if text.chars().any(char::is_control) {
        return Err("a pattern holds no control characters".to_owned());
    }
    if let Some(rest) = text.strip_prefix('!') {
        return Err(format!("a leading `!` excludes nothing here; put `{rest}` under `exclude`"));
    }
    if text.starts_with('/') || text.starts_with("./") {
        return Err(format!(
            "names have no leading `/` or `./`; write `{}`",
            text.trim_start_matches("./").trim_start_matches('/')
        ));
    }
    if text.ends_with('/') {
        return Err(format!("no name ends in `/`; write `{text}**` for everything below `{text}`"));
    }
    let specials = text.bytes().filter(|byte| b"*?[{,".contains(byte)).count();
    if specials > Pattern::MAX_SPECIALS {
        return Err(format!(
            "a pattern has at most {} wildcards, classes and alternatives, and this one {specials}",
            Pattern::MAX_SPECIALS
        ));
    }
    for part in text.split('/') {
        if part.contains("**") && part != "**" {
            return Err(format!(
                "`**` must stand alone between `/`, and stands in `{part}`; write `*` for \
                 characters within a part"
            ));
        }
    }
    Ok(())
}

fn glob(text: &str) -> Result<globset::Glob, String> {
    let text = closed_classes(text)?;
    GlobBuilder::new(&text)
        .literal_separator(true)
        .backslash_escape(true)
        .empty_alternates(true)
        .build()
        .map_err(|error| error.kind().to_string())
}

/// Makes character classes refuse `/`, as the other wildcards do.
fn closed_classes(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len() + 1);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        out.push(character);
        match character {
            '\\' => out.extend(characters.next()),
            '[' => {
                let Some((class, rest)) = characters.as_str().split_once(']') else {
                    return Err("a `[` is not closed by a `]`".to_owned());
                };
                characters = rest.chars();
                let (negated, members) = match class.strip_prefix(['!', '^']) {
                    Some(members) => (true, members),
                    None => (false, class),
                };
                let plain = |c: char| c.is_alphanumeric() || "-_. ".contains(c);
                if members.is_empty() || !members.chars().all(plain) {
                    return Err(format!(
                        "a class holds letters, digits, `-`, `_`, `.` and spaces, and `[{class}]` \
                         does not"
                    ));
                }
                let bounds: Vec<char> = members.chars().collect();
                let spans_slash = bounds
                    .windows(3)
                    .any(|range| range[1] == '-' && range[0] < '/' && range[2] > '/');
                if spans_slash {
                    return Err(format!("the range in `[{class}]` holds `/`"));
                }
                if negated {
                    out.push('!');
                    out.push('/');
                }
                out.push_str(members);
                out.push(']');
            }
            _ => {}
        }
    }
    Ok(out)
}

/// Names to include and to exclude: any of `include` (every name, when it is empty) and none of
/// `exclude`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns {
    include: Box<[Pattern]>,
    exclude: Box<[Pattern]>,
}

impl Patterns {
    /// The most patterns in one list.
    pub const MAX_PATTERNS: usize = 256;

    /// Compiles both lists; `field` is what the document calls them, for the problems.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with any of them.
    pub fn new(field: &str, include: &[String], exclude: &[String]) -> Result<Self, Vec<Problem>> {
        Self::compile(field, include, exclude, Pattern::new)
    }

    /// Compiles patterns of refs of one kind. Full names (`refs/heads/main`) are accepted for
    /// `namespace` (`refs/heads/`) and mean the same without it.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with any of them.
    pub fn of_refs(
        field: &str,
        namespace: &str,
        include: &[String],
        exclude: &[String],
    ) -> Result<Self, Vec<Problem>> {
        Self::compile(field, include, exclude, |text| match text.strip_prefix(namespace) {
            Some(short) => Pattern::new(short),
            None if text.starts_with("refs/") => {
                Err(format!("`{field}` are names below `{namespace}`, and this is not one of them"))
            }
            None => Pattern::new(text),
        })
    }

    fn compile(
        field: &str,
        include: &[String],
        exclude: &[String],
        pattern: impl Fn(&str) -> Result<Pattern, String>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut list = |name: &str, texts: &[String]| -> Box<[Pattern]> {
            if texts.len() > Self::MAX_PATTERNS {
                let message = format!(
                    "a list has at most {} patterns, and this one {}",
                    Self::MAX_PATTERNS,
                    texts.len()
                );
                problems.push(Problem::new(format!("{field}.{name}"), message));
                return Box::default();
            }
            let mut compiled = Vec::with_capacity(texts.len());
            for (index, text) in texts.iter().enumerate() {
                match pattern(text) {
                    Ok(pattern) => compiled.push(pattern),
                    Err(message) => problems.push(Problem::new(
                        format!("{field}.{name}[{index}]"),
                        format!("the pattern {} is refused: {message}", super::quoted(text)),
                    )),
                }
            }
            compiled.into()
        };
        let (include, exclude) = (list("include", include), list("exclude", exclude));
        if problems.is_empty() { Ok(Self { include, exclude }) } else { Err(problems) }
    }

    /// Whether a name is included and not excluded.
    pub fn accepts(&self, name: &str) -> bool {
        let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }

    /// The patterns to include; every name when empty.
    pub fn include(&self) -> &[Pattern] {
        &self.include
    }

    /// The patterns to exclude.
    pub fn exclude(&self) -> &[Pattern] {
        &self.exclude
    }

    /// The names, when the patterns spell them out and exclude none.
    pub fn as_literals(&self) -> Option<Vec<&str>> {
        if self.include.is_empty() || !self.exclude.is_empty() {
            return None;
        }
        self.include.iter().map(Pattern::as_literal).collect()
    }
}

impl fmt::Display for Patterns {
    /// As one line, for a record: `main, release/*, but not release/old`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, patterns: &[Pattern]| {
            for (index, pattern) in patterns.iter().enumerate() {
                if index > 0 {
                    f.write_str(", ")?;
                }
                write!(f, "{pattern}")?;
            }
            Ok(())
        };
        if self.include.is_empty() {
            f.write_str("any")?;
        } else {
            list(f, &self.include)?;
        }
        if !self.exclude.is_empty() {
            f.write_str(", but not ")?;
            list(f, &self.exclude)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).unwrap()
    }

    fn refused(text: &str) -> String {
        Pattern::new(text).unwrap_err()
    }

    #[test]
    fn a_star_and_a_question_mark_stop_at_a_slash() {
        assert!(pattern("release/*").matches("release/1"));
        assert!(!pattern("release/*").matches("release/1/2"));
        assert!(!pattern("*").matches("a/b"));
        assert!(pattern("*").matches("main"));
        assert!(pattern("v?.*").matches("v1.2"));
        assert!(!pattern("a?b").matches("a/b"));
    }

    #[test]
    fn two_stars_cross_slashes() {
        assert!(pattern("**").matches("a/b/c"));
        assert!(pattern("release/**").matches("release/1/2"));
        assert!(!pattern("release/**").matches("release"));
        assert!(!pattern("release/**").matches("releases/1"));
        assert!(pattern("**/*.md").matches("README.md"));
        assert!(pattern("**/*.md").matches("docs/a/b.md"));
        assert!(!pattern("*.md").matches("docs/a.md"));
        assert!(pattern("a/**/z").matches("a/z"));
        assert!(pattern("a/**/z").matches("a/b/c/z"));
    }

    #[test]
    fn a_bare_name_is_for_itself_alone() {
        assert!(pattern("main").matches("main"));
        assert!(!pattern("main").matches("main2"));
        assert!(!pattern("main").matches("feature/main"));
        assert_eq!(pattern("main").as_literal(), Some("main"));
    }

    #[test]
    fn classes_never_match_a_slash() {
        assert!(pattern("v[0-9]").matches("v1"));
        assert!(pattern("a[!b]c").matches("axc"));
        assert!(!pattern("a[!b]c").matches("a/c"));
        assert_eq!(refused("a[--z]"), "the range in `[--z]` holds `/`");
        assert_eq!(
            refused("a[/]b"),
            "a class holds letters, digits, `-`, `_`, `.` and spaces, and `[/]` does not"
        );
    }

    #[test]
    fn alternatives_are_any_of_the_list() {
        let pattern = pattern("{main,release/*}");
        assert!(pattern.matches("main"));
        assert!(pattern.matches("release/2"));
        assert!(!pattern.matches("release/2/3"));
    }

    #[test]
    fn full_ref_names_are_the_same_names() {
        let patterns =
            Patterns::of_refs("branches", "refs/heads/", &["refs/heads/main".to_owned()], &[])
                .unwrap();
        assert!(patterns.accepts("main"));
        let problems =
            Patterns::of_refs("branches", "refs/heads/", &["refs/tags/v1".to_owned()], &[])
                .unwrap_err();
        assert_eq!(
            problems[0].to_string(),
            "branches.include[0]: the pattern \"refs/tags/v1\" is refused: `branches` are names \
             below `refs/heads/`, and this is not one of them"
        );
    }

    #[test]
    fn what_is_excluded_is_not_accepted_though_it_is_included() {
        let patterns =
            Patterns::new("paths", &["src/**".to_owned()], &["**/*.md".to_owned()]).unwrap();
        assert!(patterns.accepts("src/lib.rs"));
        assert!(!patterns.accepts("src/README.md"));
        assert!(!patterns.accepts("docs/a.txt"));
        assert_eq!(patterns.to_string(), "src/**, but not **/*.md");
        assert_eq!(Patterns::default().to_string(), "any");
    }

    #[test]
    fn a_repository_may_be_a_path() {
        let named = Pattern::of_repository("/srv/git/api.git").unwrap();
        assert!(named.matches("/srv/git/api.git"));
        assert_eq!(named.as_literal(), Some("/srv/git/api.git"));
        let below = Pattern::of_repository("/srv/git/*").unwrap();
        assert!(below.matches("/srv/git/api.git"));
        assert!(!below.matches("/srv/git/team/api.git"));
    }

    #[test]
    fn hostile_and_mistaken_patterns_are_refused_with_a_remedy() {
        assert_eq!(refused(""), "an empty pattern is for nothing; write `**` for everything");
        assert_eq!(refused(&"a".repeat(513)), "a pattern has at most 512 bytes, and this one 513");
        assert_eq!(
            refused(&"*a".repeat(33)),
            "a pattern has at most 32 wildcards, classes and alternatives, and this one 33"
        );
        assert_eq!(
            refused("!main"),
            "a leading `!` excludes nothing here; put `main` under `exclude`"
        );
        assert_eq!(refused("/docs"), "names have no leading `/` or `./`; write `docs`");
        assert_eq!(
            refused("docs/"),
            "no name ends in `/`; write `docs/**` for everything below `docs/`"
        );
        assert_eq!(
            refused("release**"),
            "`**` must stand alone between `/`, and stands in `release**`; write `*` for \
             characters within a part"
        );
        assert_eq!(refused("a\nb"), "a pattern holds no control characters");
        assert_eq!(
            refused("{a"),
            "unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)"
        );
        assert_eq!(refused("[a"), "a `[` is not closed by a `]`");
        assert_eq!(refused("a\\"), "dangling '\\'");
        assert_eq!(refused(&"{".repeat(32)), refused("{a"));
    }

    proptest! {
        /// The forms that are matched as text mean what the general form means.
        #[test]
        fn the_quick_forms_agree_with_the_glob(
            text in "[ab/*]{1,6}|(a|b|/){0,3}\\*|(a/|b/){0,3}\\*\\*|\\*\\*/\\*[ab./]{0,3}",
            // A name of the kinds meant here has no empty part.
            name in "([ab.]{1,3}/){0,3}[ab.]{1,3}",
        ) {
            if let Ok(pattern) = Pattern::new(&text) {
                let slow = glob(&text).unwrap().compile_matcher();
                prop_assert_eq!(pattern.matches(&name), slow.is_match(&name), "{} {}", text, name);
                prop_assert!(!pattern.matches(&name) || name.starts_with(pattern.literal_prefix()));
            }
        }

        #[test]
        fn no_text_makes_a_pattern_panic(text in "\\PC{0,40}|[\\[\\]{}*?!,^/\\\\a-z-]{0,40}", name in "\\PC{0,20}") {
            if let Ok(pattern) = Pattern::new(&text) {
                pattern.matches(&name);
            }
        }
    }
}
