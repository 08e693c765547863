//! What several benchmarks share: signed pushes as a host sends them, the ledgers, the speed of the
//! disk, processor time, memory, and the distribution of what was measured.

pub mod cpu;
pub mod disk;
pub mod ledger;
pub mod memory;
pub mod push;
pub mod spread;
