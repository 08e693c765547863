//! The fence: what is asked of an expression before it may ever be evaluated.

use std::{collections::BTreeSet, sync::Arc};

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators,
};
use regex::{Regex, RegexBuilder};

use super::{
    Needs,
    view::{self, About, Shape},
};

/// The most brackets within brackets, and the most `?`; both are counted before the text is parsed,
/// because the parser goes a long way down for each.
const MAX_BRACKETS: usize = 24;
const MAX_QUESTION_MARKS: usize = 24;
/// How deep the syntax tree may be. Evaluation goes down as far.
const MAX_DEPTH: usize = 48;
/// How many nodes the syntax tree may have.
const MAX_NODES: usize = 600;
/// How many comprehensions may stand within each other.
const MAX_NESTING: usize = 2;
/// How many elements a literal may have that a comprehension goes through.
const MAX_LITERAL_RANGE: usize = 32;
/// How many `+` there may be: each may make a string as long as both its sides together.
const MAX_ADDITIONS: usize = 16;
/// How large a compiled `matches` pattern may be, in bytes.
const MAX_REGEX: usize = 256 << 10;
/// How long the text of one may be.
const MAX_REGEX_TEXT: usize = 256;

/// The functions that expressions may call.
const FUNCTIONS: [&str; 26] = [
    "contains",
    "double",
    "duration",
    "endsWith",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "hasValue",
    "int",
    "matches",
    "or",
    "orValue",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "uint",
    "value",
    "bool",
];

/// The macros; they are gone from the tree, and named for the nearest name only.
const MACROS: [&str; 6] = ["all", "exists", "exists_one", "filter", "has", "map"];

const OPERATORS: [&str; 21] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::OPT_INDEX,
    operators::OPT_SELECT,
    operators::NOT_STRICTLY_FALSE,
    operators::IN,
];

/// Looks at the text before the parser does.
pub(super) fn text(source: &str) -> Result<(), String> {
    let mut depth = 0usize;
    let mut question_marks = 0usize;
    // Brackets within strings count too: what is a string is for the parser to say.
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'?' => question_marks += 1,
            _ => {}
        }
        if depth > MAX_BRACKETS {
            return Err(format!("more than {MAX_BRACKETS} brackets stand within each other"));
        }
        if question_marks > MAX_QUESTION_MARKS {
            return Err(format!("there are more than {MAX_QUESTION_MARKS} `?`"));
        }
    }
    Ok(())
}

/// What the walk through a tree that is fit to be evaluated found out.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) needs: Needs,
    /// The paths of the event and of the payload that it names.
    pub(super) paths: BTreeSet<Arc<str>>,
    pub(super) regexes: Vec<Regex>,
    /// How many nodes a comprehension evaluates, at most, for one element of the event.
    pub(super) per_element: u64,
    /// How deep the tree is.
    pub(super) depth: usize,
    additions: usize,
}

/// Checks a tree, and makes it ready: patterns of `matches` become compiled ones, and `has` of a
/// path of the event becomes a comparison with null.
pub(super) fn tree(root: &mut IdedExpr, about: About) -> Result<Findings, String> {
    let depth = size(root)?;
    let mut findings = Findings { per_element: 1, depth, ..Findings::default() };
    let mut walk = Walk { findings: &mut findings, about, bound: Vec::new() };
    let steps = walk.node(root)?;
    // With the limits above this cannot be far off; it guards against their product.
    if steps > 100_000 {
        return Err("its comprehensions over literals do too much".to_owned());
    }
    not_a_boolean(root)?;
    Ok(findings)
}

/// Checks depth, number of nodes and nesting without recursion, for the tree is as deep as its
/// author liked; the depth.
fn size(root: &IdedExpr) -> Result<usize, String> {
    let mut nodes = 0usize;
    let mut deepest = 0usize;
    let mut stack = vec![(root, 1usize, 0usize)];
    while let Some((node, depth, nesting)) = stack.pop() {
        nodes += 1;
        deepest = deepest.max(depth);
        if nodes > MAX_NODES {
            return Err(format!("it has more than {MAX_NODES} parts"));
        }
        if depth > MAX_DEPTH {
            return Err(format!("its parts stand more than {MAX_DEPTH} deep within each other"));
        }
        if nesting > MAX_NESTING {
            return Err(format!(
                "more than {MAX_NESTING} comprehensions (`all`, `exists`, `map`, ...) stand within \
                 each other"
            ));
        }
        let mut push = |child| stack.push((child, depth + 1, nesting));
        match &node.expr {
            Expr::Call(call) => {
                call.target.as_deref().into_iter().chain(&call.args).for_each(push);
            }
            Expr::List(list) => list.elements.iter().for_each(push),
            Expr::Select(select) => push(&select.operand),
            Expr::Comprehension(comprehension) => {
                push(&comprehension.iter_range);
                push(&comprehension.accu_init);
                push(&comprehension.result);
                stack.push((&comprehension.loop_cond, depth + 1, nesting + 1));
                stack.push((&comprehension.loop_step, depth + 1, nesting + 1));
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        push(&entry.key);
                        push(&entry.value);
                    }
                }
            }
            Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
        }
    }
    Ok(deepest)
}

/// The variable and the fields of a path such as `event.head.sha`.
pub(super) fn path_of(node: &IdedExpr) -> Option<(&str, Vec<&str>)> {
    let mut fields = Vec::new();
    let mut node = node;
    loop {
        match &node.expr {
            Expr::Ident(root) => {
                fields.reverse();
                return Some((root, fields));
            }
            Expr::Select(select) if !select.test => {
                fields.push(select.field.as_str());
                node = &select.operand;
            }
            _ => return None,
        }
    }
}

struct Walk<'f> {
    findings: &'f mut Findings,
    about: About,
    bound: Vec<String>,
}

impl Walk<'_> {
    /// Checks a node and all below it; how many nodes are evaluated for it at most, elements of
    /// the event's lists not counted.
    fn node(&mut self, node: &mut IdedExpr) -> Result<u64, String> {
        if let Some(steps) = self.path(node)? {
            return Ok(steps);
        }
        match &mut node.expr {
            Expr::Literal(_) => Ok(1),
            Expr::Ident(name) => self.variable(name).map(|()| 1),
            Expr::Select(select) => Ok(1 + self.node(&mut select.operand)?),
            Expr::List(list) => {
                let mut steps = 1;
                for element in &mut list.elements {
                    steps += self.node(element)?;
                }
                Ok(steps)
            }
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Map(_) | Expr::Struct(_) => {
                Err("maps and messages cannot be built in a filter".to_owned())
            }
            Expr::Unspecified => Err("a part of it is empty".to_owned()),
        }
    }

    fn is_bound(&self, name: &str) -> bool {
        self.bound.iter().any(|bound| bound == name)
    }

    fn variable(&mut self, name: &str) -> Result<(), String> {
        // The parser gives names with `@` to what macros need; they cannot be written.
        if name.starts_with('@') || self.is_bound(name) {
            return Ok(());
        }
        let variables = self.about.variables();
        match name {
            _ if !variables.contains(&name) => {
                let known = variables.iter().copied().chain(self.bound.iter().map(String::as_str));
                return Err(format!(
                    "`{name}` is unknown; there are {}{}",
                    self.about.listed(),
                    view::meant(name, known, "")
                ));
            }
            "body" => self.findings.needs.body = true,
            "headers" => self.findings.needs.headers = true,
            "run" => {
                return Err("`run` alone is no value; name what of it is meant, such as \
                            `run.state`"
                    .to_owned());
            }
            _ => {
                return Err("`event` alone is no value; name what of it is meant, such as \
                            `event.action`"
                    .to_owned());
            }
        }
        Ok(())
    }

    /// Checks a path that begins at a variable.
    fn path(&mut self, node: &mut IdedExpr) -> Result<Option<u64>, String> {
        let (inner, test) = match &node.expr {
            Expr::Select(select) if select.test => (&*select.operand, Some(select.field.as_str())),
            Expr::Select(_) => (&*node, None),
            _ => return Ok(None),
        };
        let Some((root, mut fields)) = path_of(inner) else { return Ok(None) };
        fields.extend(test);
        if self.is_bound(root) {
            return Ok(None);
        }
        let path = fields.join(".");
        let steps = 1 + fields.len() as u64;
        match root {
            "run" if self.about == About::Run => {
                view::run_path(&path)?;
                self.findings.paths.insert(format!("run.{path}").into());
                if test.is_some() {
                    present(node);
                }
            }
            "event" => {
                view::event_path(&path)?;
                if self.about == About::Run && path == "changed_files" {
                    return Err("a notification does not know `event.changed_files`".to_owned());
                }
                self.findings.needs.note_event(&path);
                self.findings.paths.insert(format!("event.{path}").into());
                if test.is_some() {
                    present(node);
                }
            }
            "body" if self.about == About::Event => {
                self.findings.needs.body = true;
                self.findings.paths.insert(format!("body.{path}").into());
            }
            _ => return Ok(None),
        }
        Ok(Some(steps))
    }

    fn call(&mut self, call: &mut CallExpr) -> Result<u64, String> {
        let name = call.func_name.as_str();
        if !OPERATORS.contains(&name) && !FUNCTIONS.contains(&name) {
            let known = FUNCTIONS.iter().chain(&MACROS).copied();
            return Err(match MACROS.contains(&name) {
                true => format!("`{name}` is not called in this way"),
                false => {
                    format!("the function `{name}` is unknown{}", view::meant(name, known, ""))
                }
            });
        }
        match name {
            "matches" => return self.matches(call),
            operators::ADD => self.addition(call)?,
            operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT => {
                if let Some(steps) = self.index(call)? {
                    return Ok(steps);
                }
            }
            _ => {}
        }
        let mut steps = 1;
        for argument in call.target.as_deref_mut().into_iter().chain(&mut call.args) {
            steps += self.node(argument)?;
        }
        Ok(steps)
    }

    /// `event.?label` names a path as `event.label` does; other ways to index the event itself
    /// would hide what is looked at.
    fn index(&mut self, call: &mut CallExpr) -> Result<Option<u64>, String> {
        let [operand, key] = call.args.as_slice() else { return Ok(None) };
        if !matches!(&operand.expr, Expr::Ident(name) if name == "event") || self.is_bound("event")
        {
            return Ok(None);
        }
        let field = match &key.expr {
            Expr::Literal(LiteralValue::String(field))
                if call.func_name == operators::OPT_SELECT =>
            {
                field.inner().to_owned()
            }
            _ => {
                return Err(
                    "`event` cannot be indexed; write the path out, such as `event.head.sha`"
                        .to_owned(),
                );
            }
        };
        view::event_path(&field)?;
        if field == "changed_files" {
            return Err("`event.changed_files` is always there; write it without `?`".to_owned());
        }
        self.findings.needs.note_event(&field);
        self.findings.paths.insert(format!("event.{field}").into());
        Ok(Some(3))
    }

    /// Within a comprehension the sum of two strings or lists could be doubled at every turn, so
    /// one side must be a number for certain.
    fn addition(&mut self, call: &CallExpr) -> Result<(), String> {
        let of_macro = matches!(call.args.first().map(|a| &a.expr), Some(Expr::Ident(name)) if name == "@result");
        if of_macro {
            return Ok(());
        }
        self.findings.additions += 1;
        if self.findings.additions > MAX_ADDITIONS {
            return Err(format!("there are more than {MAX_ADDITIONS} `+`"));
        }
        if !self.bound.is_empty() && !call.args.iter().any(is_number) {
            return Err("within a comprehension `+` is for numbers, and neither side of this one \
                        is a number for certain; write `int(...)` around one"
                .to_owned());
        }
        Ok(())
    }

    fn matches(&mut self, call: &mut CallExpr) -> Result<u64, String> {
        let mut arguments: Vec<IdedExpr> = call
            .target
            .take()
            .map(|target| *target)
            .into_iter()
            .chain(call.args.drain(..))
            .collect();
        let (Some(pattern), Some(mut text), true) =
            (arguments.pop(), arguments.pop(), arguments.is_empty())
        else {
            return Err("`matches` takes a string and a pattern".to_owned());
        };
        let Expr::Literal(LiteralValue::String(pattern_text)) = &pattern.expr else {
            return Err("the pattern of `matches` must be a string in quotes".to_owned());
        };
        let regex = compile_regex(pattern_text.inner())?;
        let steps = 2 + self.node(&mut text)?;
        let name = format!("@re{}", self.findings.regexes.len());
        self.findings.regexes.push(regex);
        "@matches".clone_into(&mut call.func_name);
        call.args = vec![text, IdedExpr { id: pattern.id, expr: Expr::Ident(name) }];
        Ok(steps)
    }

    fn comprehension(&mut self, comprehension: &mut ComprehensionExpr) -> Result<u64, String> {
        let variable = &comprehension.iter_var;
        if comprehension.iter_var2.is_some() {
            return Err("a comprehension has one variable".to_owned());
        }
        if self.about.variables().contains(&variable.as_str()) || self.is_bound(variable) {
            return Err(format!("`{variable}` is taken; name the element otherwise"));
        }
        let turns = match &comprehension.iter_range.expr {
            Expr::List(list) => {
                let literals = list.elements.iter().all(|e| matches!(e.expr, Expr::Literal(_)));
                if !literals || list.elements.len() > MAX_LITERAL_RANGE {
                    return Err(format!(
                        "a comprehension goes through a path of the event, or a list of at most \
                         {MAX_LITERAL_RANGE} literals"
                    ));
                }
                Some(list.elements.len() as u64)
            }
            _ if is_range(&comprehension.iter_range) => None,
            _ => {
                return Err(format!(
                    "a comprehension goes through a path of the event, or a list of at most \
                     {MAX_LITERAL_RANGE} literals"
                ));
            }
        };
        let range = self.node(&mut comprehension.iter_range)?;
        let start = self.node(&mut comprehension.accu_init)?;
        self.bound.push(variable.clone());
        let turn =
            self.node(&mut comprehension.loop_cond)? + self.node(&mut comprehension.loop_step)?;
        self.bound.pop();
        let end = self.node(&mut comprehension.result)?;
        let all_turns = match turns {
            Some(turns) => turns.saturating_mul(turn),
            None => {
                self.findings.per_element = self.findings.per_element.max(turn);
                0
            }
        };
        Ok(range.saturating_add(start).saturating_add(end).saturating_add(all_turns))
    }
}

/// Turns `has(event.label)`, which would be true for every path that exists, into
/// `event.label != null`.
fn present(node: &mut IdedExpr) {
    let Expr::Select(mut select) = std::mem::take(&mut node.expr) else { return };
    select.test = false;
    let path = IdedExpr { id: node.id, expr: Expr::Select(select) };
    let null = IdedExpr { id: node.id, expr: Expr::Literal(LiteralValue::Null) };
    node.expr = Expr::Call(CallExpr {
        func_name: operators::NOT_EQUALS.to_owned(),
        target: None,
        args: vec![path, null],
    });
}

/// Whether a range begins at a variable and is reached by fields and literal indices.
fn is_range(node: &IdedExpr) -> bool {
    let mut node = node;
    loop {
        node = match &node.expr {
            Expr::Ident(_) => return true,
            Expr::Select(select) if !select.test => &select.operand,
            Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
                [operand, IdedExpr { expr: Expr::Literal(_), .. }] => operand,
                _ => return false,
            },
            _ => return false,
        };
    }
}

fn is_number(node: &IdedExpr) -> bool {
    match &node.expr {
        Expr::Literal(literal) => matches!(
            literal,
            LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_)
        ),
        Expr::Call(call) => matches!(
            call.func_name.as_str(),
            operators::SUBSTRACT
                | operators::MULTIPLY
                | operators::DIVIDE
                | operators::MODULO
                | operators::NEGATE
                | "size"
                | "int"
                | "uint"
                | "double"
        ),
        _ => false,
    }
}

fn compile_regex(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > MAX_REGEX_TEXT {
        return Err(format!(
            "a pattern of `matches` has at most {MAX_REGEX_TEXT} bytes, and this one {}",
            pattern.len()
        ));
    }
    RegexBuilder::new(pattern).size_limit(MAX_REGEX).dfa_size_limit(MAX_REGEX * 4).build().map_err(
        |error| match error {
            regex::Error::CompiledTooBig(_) => format!(
                "the pattern {} of `matches` becomes too large; use fewer repetitions or classes",
                super::super::quoted(pattern)
            ),
            error => {
                // The library draws a picture over several lines; its last one says what is wrong.
                let text = error.to_string();
                let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                format!(
                    "the pattern {} of `matches` is not a regular expression: {reason}",
                    super::super::quoted(pattern)
                )
            }
        },
    )
}

/// Refuses what can never be true or false.
fn not_a_boolean(root: &IdedExpr) -> Result<(), String> {
    let is = match &root.expr {
        Expr::Literal(literal) => match literal {
            LiteralValue::Boolean(_) => return Ok(()),
            LiteralValue::String(_) => "a string",
            LiteralValue::Bytes(_) => "bytes",
            LiteralValue::Null => "null",
            LiteralValue::Double(_) | LiteralValue::Int(_) | LiteralValue::UInt(_) => "a number",
        },
        Expr::List(_) => "a list",
        Expr::Comprehension(comprehension) => match &comprehension.accu_init.expr {
            Expr::List(_) => "a list",
            _ => return Ok(()),
        },
        Expr::Select(_) => {
            let shape = match path_of(root) {
                Some(("event", fields)) => view::event_path(&fields.join("."))?,
                Some(("run", fields)) => view::run_path(&fields.join("."))?,
                _ => return Ok(()),
            };
            match shape {
                Shape::Text => "a string",
                Shape::Number => "a number",
                Shape::List => "a list",
                Shape::Object => "an object",
                Shape::Bool | Shape::Open => return Ok(()),
            }
        }
        Expr::Call(call) => match call.func_name.as_str() {
            operators::ADD
            | operators::SUBSTRACT
            | operators::MULTIPLY
            | operators::DIVIDE
            | operators::MODULO
            | operators::NEGATE => "a number, a string or a list",
            "size" | "int" | "uint" | "double" => "a number",
            "string" => "a string",
            "timestamp" => "a time",
            "duration" => "a duration",
            _ => return Ok(()),
        },
        _ => return Ok(()),
    };
    Err(format!("it gives {is}, and a filter gives true or false"))
}
