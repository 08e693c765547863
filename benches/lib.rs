//! What several benchmarks share: signed pushes as a host sends them, and the speed of the disk.

pub mod disk;
pub mod push;
