//! Runs as processes of this machine: [`LocalSink`].
//!
//! **It runs code from the repository on this machine.** The steps of a run are processes of the
//! user that the program runs as: they can read and change all that this user can, the sink's own
//! records too, and reach every network that the machine reaches. There is no container and no
//! sandbox. Use it for repositories whose every contributor you would give a shell: your own on a
//! laptop, and tests.
//!
//! # What it executes
//!
//! A `tekton.dev/v1` PipelineRun with an embedded pipeline whose tasks are embedded: parameters,
//! results, workspaces, `when`, `runAfter`, `finally`, `retries`, timeouts, scripts and commands, as
//! Tekton executes them (<https://tekton.dev/docs/pipelines/>), with these differences:
//!
//! * Images and service accounts are not used. A step's programs are the machine's. Resource
//!   requests, security contexts and the like are refused by name, as is all else that is not
//!   offered: references that have to be resolved, `matrix`, sidecars, step templates, step actions,
//!   custom tasks, `onError`, pipelines in pipelines, volumes other than workspaces, `valueFrom`.
//! * A workspace is where `$(workspaces.NAME.path)` says; there is no `/workspace`. `emptyDir` is a
//!   new directory for each attempt of each task, `volumeClaimTemplate` one for the run. A claim, a
//!   config map or a secret is a directory that [`LocalSinkBuilder::volume`] names, or refused. A
//!   task that declares a workspace `readOnly` gets a copy of it without permission to write.
//! * `$(context.task.name)` and `$(context.pipeline.name)` are the names of the task in the pipeline
//!   and of the run, since embedded ones have none of their own.
//! * A task that uses a result that a succeeded task did not write fails, and `finally` runs.
//! * A result has at most 64 KiB.
//! * A task ends, and with it what its steps left running, when its last step ends; each step's
//!   processes end with the step.
//!
//! A step starts in a new directory with `HOME` and `TMPDIR` of its task, and an environment that
//! has nothing of this process's but what [`LocalSinkBuilder::env`] adds.
//!
//! # What survives
//!
//! A run is a directory below the sink's root, made at once or not at all, and everything that
//! decides about it is in there. Steps do not end with the program: killed at any point and opened
//! again on the same root, the sink takes up the steps that run, starts none twice, and goes on. A
//! step that was broken off while nobody watched (a reboot, a killed process group) makes its task
//! fail as interrupted; with `retries` it is tried again, else the run ends as
//! [`Interrupted`](crate::RunPhase::Interrupted), after its `finally`.
//!
//! # What is left of a step
//!
//! When a step ends, the processes that it left are killed. On Linux each step gets a control group
//! (cgroup v2, Linux 5.14 or later) where this process may make one, which no process leaves by
//! forking, by a session of its own, or by clearing what it inherited:
//! [`LocalSink::has_control_groups`] tells. Processes may make groups as root, in a container whose
//! `/sys/fs/cgroup` is writable, and in a systemd unit with `Delegate=yes` or a desktop session of
//! their user.
//!
//! Where they may not, a step's processes are those of its process group, and on Linux also those that
//! left the group but have the step's environment variable or its lock open: a daemon that sheds all
//! three escapes. What always escapes is what is started through another service of the machine (at,
//! cron, a container runtime), and a process that has, and uses, the right to move itself to another
//! control group. Elsewhere than on Linux only the process group is known.
//!
//! # What is kept of logs
//!
//! Of a step's log 16 MiB are kept, of all logs of a run 128 MiB, or what
//! [`LocalSinkBuilder::max_step_log`] and [`LocalSinkBuilder::max_run_logs`] say: the beginning and the
//! end, and between them a line that says how many bytes were left out. Where a log
//! would bring its run over the limit, 64 KiB of it are kept. The limits hold while the sink runs, and again when it is
//! opened; a step can exceed them for as long as nobody looks, a twentieth of a second otherwise. On a
//! file system that cannot make holes in files, and elsewhere than on Linux, a step that exceeds its
//! limit is ended. What steps put elsewhere, such as in their workspaces, is not limited.

mod board;
mod control_group;
mod executor;
mod files;
mod graph;
mod log_limit;
mod logs;
mod run_directory;
mod sink;
mod spec;
mod step;
mod stragglers;
mod task;
mod variables;

pub use self::{
    sink::{LocalSink, LocalSinkBuilder},
    spec::VolumeKind,
};
