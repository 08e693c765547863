//! The order of tasks: from `runAfter`, and from references to results
//! (<https://tekton.dev/docs/pipelines/pipelines/#configuring-the-task-execution-order>).

use std::collections::{BTreeMap, BTreeSet};

use super::{spec::Task, variables::Subject};

/// What a task waits for, as places in the list of tasks.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Needs {
    /// Those that it runs after.
    pub(super) after: BTreeSet<usize>,
    /// Those whose results it uses.
    pub(super) results: BTreeSet<usize>,
}

impl Needs {
    /// All that have to be decided before it can start.
    pub(super) fn all(&self) -> impl Iterator<Item = usize> + '_ {
        self.after.union(&self.results).copied()
    }
}

/// What each task waits for. Those of `finally` (from `finally_from` on) wait for all the others,
/// and for none of their own; of them only the results that they use are listed.
///
/// # Errors
///
/// A task that does not exist, `runAfter` in `finally`, or a cycle, by name.
pub(super) fn needs(tasks: &[Task], finally_from: usize) -> Result<Vec<Needs>, String> {
    let places: BTreeMap<&str, usize> = tasks[..finally_from]
        .iter()
        .enumerate()
        .map(|(index, task)| (task.name.as_str(), index))
        .collect();
    let mut all = Vec::with_capacity(tasks.len());
    for (index, task) in tasks.iter().enumerate() {
        let mut needs = Needs::default();
        if index >= finally_from && !task.run_after.is_empty() {
            return Err(format!("task {:?}: runAfter is not allowed in finally", task.name));
        }
        for before in &task.run_after {
            let place = places.get(before.as_str()).ok_or_else(|| {
                let shown: String = before.chars().take(80).collect();
                format!("task {:?}: runAfter names {shown:?}, which is no task", task.name)
            })?;
            needs.after.insert(*place);
        }
        for variable in task.variables() {
            if let Subject::TaskResult { task: other, .. } = &variable.subject {
                let place = places.get(other.as_str()).ok_or_else(|| {
                    format!("task {:?}: it uses a result of {other:?}, which is no task", task.name)
                })?;
                needs.results.insert(*place);
            }
        }
        all.push(needs);
    }
    match cycle(&all) {
        None => Ok(all),
        Some(places) => {
            let names: Vec<&str> = places.iter().map(|place| tasks[*place].name.as_str()).collect();
            Err(format!("tasks wait for each other: {}", names.join(" -> ")))
        }
    }
}

/// A cycle, each waiting for the next, the first repeated at the end.
fn cycle(needs: &[Needs]) -> Option<Vec<usize>> {
    let mut left: BTreeSet<usize> = (0..needs.len()).collect();
    loop {
        let free: Vec<usize> = left
            .iter()
            .copied()
            .filter(|place| needs[*place].all().all(|before| !left.contains(&before)))
            .collect();
        if free.is_empty() {
            break;
        }
        for place in free {
            left.remove(&place);
        }
    }
    let mut path = vec![*left.first()?];
    loop {
        let last = path[path.len() - 1];
        let next = needs[last].all().find(|before| left.contains(before))?;
        if let Some(start) = path.iter().position(|place| *place == next) {
            let mut cycle = path.split_off(start);
            cycle.push(next);
            return Some(cycle);
        }
        path.push(next);
    }
}
