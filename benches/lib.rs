//! What several benchmarks share: signed pushes as a host sends them, the speed of the disk, and
//! processor time.

pub mod cpu;
pub mod disk;
pub mod push;
