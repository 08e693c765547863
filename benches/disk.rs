//! How fast the disk is that the ledgers are on.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    time::{Duration, Instant},
};

/// How often a second a write of 4 KiB to a file of the temporary directory is made durable,
/// measured for two seconds.
///
/// # Panics
///
/// When the temporary directory cannot be written.
pub fn syncs_per_second() -> f64 {
    let directory = tempfile::tempdir().expect("a directory");
    let mut file = File::create(directory.path().join("synced")).expect("a file");
    let page = [7_u8; 4096];
    let mut count: u64 = 0;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        file.seek(SeekFrom::Start(count % 1_000 * 4096)).expect("it seeks");
        file.write_all(&page).expect("it writes");
        file.sync_data().expect("it syncs");
        count += 1;
    }
    count as f64 / started.elapsed().as_secs_f64()
}
