//! Commands in comments: lines such as `/bench --quick`.

use std::{fmt, sync::Arc};

/// A line of a comment that is a command.
///
/// ```
/// use workflows_core::matching::commands;
///
/// let found = commands("Looks good.\n\n/bench \"large set\" --quick\n> /cancel\n");
/// assert_eq!(found.len(), 1);
/// assert_eq!(&*found[0].name, "/bench");
/// assert_eq!(found[0].arguments.as_deref().unwrap(), ["large set", "--quick"]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its place among the commands of the comment, from 0.
    pub index: usize,
    /// The command with its slash, in the case in which it was written, such as `/bench`.
    pub name: Arc<str>,
    /// What stands behind it, or why that cannot be read.
    pub arguments: Result<Vec<String>, CommandError>,
}

/// Why a command cannot be read or carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// A quote is not closed on the line.
    #[error("`{command}`: a {quote} is not closed on the line")]
    OpenQuote {
        /// The command.
        command: Arc<str>,
        /// The quote.
        quote: char,
    },
    /// The line ends in a backslash.
    #[error("`{command}`: the line ends in a backslash")]
    OpenEscape {
        /// The command.
        command: Arc<str>,
    },
    /// The line is too long, or has too many arguments.
    #[error(
        "`{command}`: a command has at most {max_bytes} bytes and {max_arguments} arguments",
        max_bytes = MAX_LINE,
        max_arguments = MAX_ARGUMENTS
    )]
    TooLong {
        /// The command.
        command: Arc<str>,
    },
    /// A platform command has too many arguments.
    #[error("`{command}` takes at most one argument: {takes}")]
    TooManyArguments {
        /// The command.
        command: Arc<str>,
        /// What it takes.
        takes: &'static str,
    },
    /// An argument is not what the command takes.
    #[error("`{command}` takes {takes}, and {got} is not one")]
    WrongArgument {
        /// The command.
        command: Arc<str>,
        /// What it takes.
        takes: &'static str,
        /// What it got.
        got: String,
    },
    /// A name that is kept for later.
    #[error("`{command}` is kept for the platform and does nothing yet")]
    Reserved {
        /// The command.
        command: Arc<str>,
    },
}

/// The longest comment that is searched, in bytes; what is behind that holds no commands.
const MAX_COMMENT: usize = 256 << 10;
/// The longest command line, in bytes.
const MAX_LINE: usize = 4 << 10;
/// The most arguments of a command.
const MAX_ARGUMENTS: usize = 64;
/// The most commands of a comment; further ones are not looked at.
const MAX_COMMANDS: usize = 32;
/// The longest name of a command, in bytes with its slash.
const MAX_NAME: usize = 64;

/// The commands in a comment, in order.
///
/// A command is a line of its own that begins, after at most three spaces, with `/` and a word of
/// letters, digits, `-` and `_` that begins with a letter; what follows a space are its arguments,
/// divided and quoted as in a shell (`'...'` as it is, `"..."` with `\"` and `\\`, `\` before a
/// character), with nothing expanded. Lines in code blocks (fenced with three or more backquotes or tildes, or
/// indented by four spaces or a tab), quotes (`>`) and HTML comments are text.
///
/// The first 256 KiB of a comment are searched for at most 32 commands.
pub fn commands(comment: &str) -> Vec<Command> {
    let mut end = comment.len().min(MAX_COMMENT);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    let mut found = Vec::new();
    let mut fence: Option<Fence> = None;
    let mut in_html_comment = false;
    for line in comment[..end].lines() {
        let indent = line.len() - line.trim_start_matches(' ').len();
        let text = line.trim();
        if in_html_comment {
            in_html_comment = !text.contains("-->");
            continue;
        }
        if let Some(open) = &fence {
            // With its list item, a code block ends too.
            if text.is_empty() || indent >= open.within {
                if open.is_closed_by(indent, text) {
                    fence = None;
                }
                continue;
            }
            fence = None;
        }
        if indent >= 4 || line[indent..].starts_with('\t') {
            continue;
        }
        if let Some(opened) = Fence::opened_by(indent, text) {
            fence = Some(opened);
            continue;
        }
        if text.starts_with('>') {
            continue;
        }
        if let Some(open) = text.rfind("<!--") {
            in_html_comment = !text[open..].contains("-->");
            continue;
        }
        if let Some((name, rest)) = split_command(text) {
            let name: Arc<str> = name.into();
            let arguments = if line.len() > MAX_LINE {
                Err(CommandError::TooLong { command: Arc::clone(&name) })
            } else {
                split_arguments(&name, rest)
            };
            found.push(Command { index: found.len(), name, arguments });
            if found.len() == MAX_COMMANDS {
                break;
            }
        }
    }
    found
}

/// An open code block, as <https://spec.commonmark.org/0.31.2/#fenced-code-blocks> has them.
struct Fence {
    mark: char,
    length: usize,
    /// Where the text of the list item begins that it is in; 0 outside of lists.
    within: usize,
}

impl Fence {
    fn opened_by(indent: usize, text: &str) -> Option<Self> {
        let mut inner = text;
        while let Some(rest) = behind_list_marker(inner) {
            inner = rest;
        }
        let within = if inner.len() == text.len() { 0 } else { indent + text.len() - inner.len() };
        let mark = inner.chars().next().filter(|c| matches!(c, '`' | '~'))?;
        let length = inner.chars().take_while(|c| *c == mark).count();
        // An inline code span that begins a line is no fence.
        let info = &inner[length..];
        let opens = length >= 3 && !(mark == '`' && info.contains('`'));
        opens.then_some(Self { mark, length, within })
    }

    fn is_closed_by(&self, indent: usize, text: &str) -> bool {
        let length = text.chars().take_while(|c| *c == self.mark).count();
        indent < self.within + 4 && length >= self.length && length == text.chars().count()
    }
}

/// What stands in a list item that begins here.
fn behind_list_marker(text: &str) -> Option<&str> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let rest = match digits {
        0 => text.strip_prefix(['-', '*', '+']),
        1..=9 => text[digits..].strip_prefix(['.', ')']),
        _ => None,
    }?;
    let inner = rest.trim_start_matches(' ');
    (inner.len() < rest.len()).then_some(inner)
}

fn split_command(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    is_command(name).then_some((name, rest))
}

/// Whether a text is a command as a trigger may name one: `/` and a word of letters, digits, `-`
/// and `_` that begins with a letter, of at most 64 bytes together.
pub fn is_command(text: &str) -> bool {
    let Some(word) = text.strip_prefix('/') else { return false };
    text.len() <= MAX_NAME
        && word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

fn split_arguments(command: &Arc<str>, text: &str) -> Result<Vec<String>, CommandError> {
    let mut arguments = Vec::new();
    let mut current: Option<String> = None;
    let mut characters = text.chars();
    let open_escape = || CommandError::OpenEscape { command: Arc::clone(command) };
    let open_quote = |quote| CommandError::OpenQuote { command: Arc::clone(command), quote };
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' => arguments.extend(current.take()),
            '\\' => {
                current.get_or_insert_default().push(characters.next().ok_or_else(open_escape)?)
            }
            '\'' => {
                let argument = current.get_or_insert_default();
                loop {
                    match characters.next().ok_or_else(|| open_quote('\''))? {
                        '\'' => break,
                        inner => argument.push(inner),
                    }
                }
            }
            '"' => {
                let argument = current.get_or_insert_default();
                loop {
                    match characters.next().ok_or_else(|| open_quote('"'))? {
                        '"' => break,
                        '\\' => match characters.next().ok_or_else(|| open_quote('"'))? {
                            escaped @ ('"' | '\\') => argument.push(escaped),
                            other => argument.extend(['\\', other]),
                        },
                        inner => argument.push(inner),
                    }
                }
            }
            other => current.get_or_insert_default().push(other),
        }
        if arguments.len() > MAX_ARGUMENTS {
            return Err(CommandError::TooLong { command: Arc::clone(command) });
        }
    }
    arguments.extend(current);
    if arguments.len() > MAX_ARGUMENTS {
        return Err(CommandError::TooLong { command: Arc::clone(command) });
    }
    Ok(arguments)
}

/// A command that belongs to the platform; a trigger cannot have its name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlatformCommand {
    /// `/test [workflow]`: run what matches the pull request, or one workflow of it, again.
    Test {
        /// The workflow; all when left out.
        workflow: Option<String>,
    },
    /// `/retest [workflow]`: run again what failed, or one workflow.
    Retest {
        /// The workflow; all that failed when left out.
        workflow: Option<String>,
    },
    /// `/ok-to-test [head]`: approve the head.
    OkToTest {
        /// The first 7 or more digits of the commit that was looked at, in lower case. Left out, or
        /// short of the whole id, it stands for the head that was known when the comment was written.
        head: Option<String>,
    },
    /// `/cancel [workflow]`: cancel what is under way.
    Cancel {
        /// The workflow; all when left out.
        workflow: Option<String>,
    },
}

impl PlatformCommand {
    /// The names that belong to the platform, `/hold` and `/explain` for later among them.
    pub const NAMES: &'static [&'static str] =
        &["/test", "/retest", "/ok-to-test", "/cancel", "/hold", "/explain"];

    /// Reads a platform command; `None` for a command that is not the platform's.
    ///
    /// # Errors
    ///
    /// What is wrong with its arguments, in words for the person who wrote the comment.
    pub fn parse(command: &Command) -> Option<Result<Self, CommandError>> {
        if !Self::NAMES.contains(&&*command.name) {
            return None;
        }
        Some(Self::parse_arguments(command))
    }

    fn parse_arguments(command: &Command) -> Result<Self, CommandError> {
        const WORKFLOW: &str = "the name of a workflow";
        const HEAD: &str = "7 to 64 hexadecimal digits of a commit";
        let takes = if &*command.name == "/ok-to-test" { HEAD } else { WORKFLOW };
        let argument = match command.arguments.as_deref().map_err(Clone::clone)? {
            [] => None,
            [one] => Some(one.clone()),
            _ => {
                return Err(CommandError::TooManyArguments {
                    command: Arc::clone(&command.name),
                    takes,
                });
            }
        };
        match &*command.name {
            "/test" => Ok(Self::Test { workflow: argument }),
            "/retest" => Ok(Self::Retest { workflow: argument }),
            "/cancel" => Ok(Self::Cancel { workflow: argument }),
            "/ok-to-test" => match argument {
                Some(digits)
                    if !(7..=64).contains(&digits.len())
                        || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
                {
                    Err(CommandError::WrongArgument {
                        command: Arc::clone(&command.name),
                        takes,
                        got: super::quoted(&digits),
                    })
                }
                digits => Ok(Self::OkToTest { head: digits.map(|d| d.to_ascii_lowercase()) }),
            },
            _ => Err(CommandError::Reserved { command: Arc::clone(&command.name) }),
        }
    }
}

impl fmt::Display for PlatformCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, argument) = match self {
            Self::Test { workflow } => ("/test", workflow),
            Self::Retest { workflow } => ("/retest", workflow),
            Self::OkToTest { head } => ("/ok-to-test", head),
            Self::Cancel { workflow } => ("/cancel", workflow),
        };
        f.write_str(name)?;
        match argument {
            Some(argument) => write!(f, " {argument}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(comment: &str) -> Vec<String> {
        commands(comment).iter().map(|command| command.name.to_string()).collect()
    }

    fn arguments(line: &str) -> Result<Vec<String>, String> {
        commands(line)[0].arguments.clone().map_err(|error| error.to_string())
    }

    fn platform(line: &str) -> Result<PlatformCommand, String> {
        PlatformCommand::parse(&commands(line)[0]).unwrap().map_err(|error| error.to_string())
    }

    #[test]
    fn a_command_is_a_line_of_its_own() {
        assert_eq!(names("/test"), ["/test"]);
        assert_eq!(names("  /test  \r\n/bench\r\n"), ["/test", "/bench"]);
        assert!(names("please /test this").is_empty());
        assert!(names("/").is_empty());
        assert!(names("/usr/bin is a path").is_empty());
        assert!(names("//comment").is_empty());
        assert!(names("/1st").is_empty());
        assert_eq!(names("/test-all_2 now"), ["/test-all_2"]);
    }

    #[test]
    fn commands_carry_their_place_in_the_comment() {
        let found = commands("/a\ntext\n/b x\n/a y");
        let places: Vec<_> = found.iter().map(|c| (c.index, &*c.name)).collect();
        assert_eq!(places, [(0, "/a"), (1, "/b"), (2, "/a")]);
    }

    #[test]
    fn code_quotes_and_html_comments_hold_no_commands() {
        assert!(names("```\n/test\n```").is_empty());
        assert!(names("~~~~ sh\n/test\n~~~\n/cancel\n~~~~").is_empty());
        assert!(names("    /test").is_empty());
        assert!(names("\t/test").is_empty());
        assert!(names("> /test").is_empty());
        assert!(names("<!--\n/test\n-->").is_empty());
        assert!(names("<!-- note -->\n<!-- /test -->").is_empty());
        assert_eq!(names("```\ncode\n```\n/test"), ["/test"]);
        assert_eq!(names("```inline``` code\n/test"), ["/test"]);
        assert_eq!(names("<!-- hidden -->\n/test"), ["/test"]);
        assert!(names("```\nnever closed\n/test").is_empty());
    }

    #[test]
    fn a_code_block_in_a_list_is_one_and_ends_with_it() {
        assert_eq!(names("- ```\n  /cancel\n  ```\n/test"), ["/test"]);
        assert_eq!(
            names("1. like this:\n\n10) - ~~~sh\n      /cancel\n      ~~~\n/test"),
            ["/test"]
        );
        assert_eq!(names("* ```\n  /cancel\n\n  /cancel\n/test"), ["/test"], "never closed");
        assert!(names("- ```\n  /cancel\n      ```\n  /cancel").is_empty(), "not a fence");
        assert_eq!(names("-```\n/test"), ["/test"], "no list");
    }

    #[test]
    fn arguments_are_divided_and_quoted_as_in_a_shell() {
        assert_eq!(arguments("/b  a   b").unwrap(), ["a", "b"]);
        assert_eq!(arguments(r#"/b "a b" 'c "d' e\ f"#).unwrap(), ["a b", "c \"d", "e f"]);
        assert_eq!(arguments(r#"/b "a \" \\ \n" x"y"z"#).unwrap(), [r#"a " \ \n"#, "xyz"]);
        assert_eq!(arguments("/b '' \"\"").unwrap(), ["", ""]);
        assert_eq!(arguments("/b $(rm -rf) $HOME `x`").unwrap(), ["$(rm", "-rf)", "$HOME", "`x`"]);
    }

    #[test]
    fn a_command_that_cannot_be_read_says_why() {
        assert_eq!(arguments("/b \"x").unwrap_err(), "`/b`: a \" is not closed on the line");
        assert_eq!(arguments("/b 'x").unwrap_err(), "`/b`: a ' is not closed on the line");
        assert_eq!(arguments("/b x\\").unwrap_err(), "`/b`: the line ends in a backslash");
        let too_long = "`/b`: a command has at most 4096 bytes and 64 arguments";
        assert_eq!(arguments(&format!("/b {}", "x".repeat(4096))).unwrap_err(), too_long);
        assert_eq!(arguments(&format!("/b {}", "x ".repeat(65))).unwrap_err(), too_long);
    }

    #[test]
    fn a_comment_has_at_most_32_commands_in_its_first_256_kib() {
        assert_eq!(commands(&"/a\n".repeat(100)).len(), 32);
        let far = format!("{}\n/a", "é".repeat(MAX_COMMENT / 2));
        assert!(commands(&far).is_empty());
    }

    #[test]
    fn platform_commands_are_read_with_their_argument() {
        assert_eq!(platform("/test"), Ok(PlatformCommand::Test { workflow: None }));
        assert_eq!(
            platform("/retest ci"),
            Ok(PlatformCommand::Retest { workflow: Some("ci".to_owned()) })
        );
        assert_eq!(
            platform("/ok-to-test 3F2A1C5"),
            Ok(PlatformCommand::OkToTest { head: Some("3f2a1c5".to_owned()) })
        );
        assert_eq!(platform("/cancel"), Ok(PlatformCommand::Cancel { workflow: None }));
        assert_eq!(PlatformCommand::parse(&commands("/bench")[0]), None);
    }

    #[test]
    fn a_wrong_platform_command_says_what_it_takes() {
        assert_eq!(
            platform("/test a b").unwrap_err(),
            "`/test` takes at most one argument: the name of a workflow"
        );
        assert_eq!(
            platform("/ok-to-test main").unwrap_err(),
            "`/ok-to-test` takes 7 to 64 hexadecimal digits of a commit, and \"main\" is not one"
        );
        assert_eq!(
            platform("/hold").unwrap_err(),
            "`/hold` is kept for the platform and does nothing yet"
        );
        assert_eq!(platform("/test 'x").unwrap_err(), "`/test`: a ' is not closed on the line");
    }

    proptest! {
        #[test]
        fn no_comment_makes_the_reader_panic(comment in "[ \\t\\n/`~<!>'\"\\\\a-z-]{0,200}|\\PC{0,200}") {
            for command in commands(&comment) {
                prop_assert!(is_command(&command.name));
                prop_assert!(comment.contains(&*command.name));
                let _ = PlatformCommand::parse(&command);
            }
        }

        #[test]
        fn a_quoted_argument_comes_out_as_it_was(argument in "[^'\\n\\r]{0,60}") {
            let line = format!("/x '{argument}'");
            let found = commands(&line);
            prop_assert_eq!(found[0].arguments.as_deref().unwrap(), [argument]);
        }
    }
}
