//! Whatever a comment says, its commands are lines of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use workflows_core::matching::{PlatformCommand, commands, is_command};

fuzz_target!(|comment: &str| {
    for (place, command) in commands(comment).iter().enumerate() {
        assert_eq!(command.index, place);
        assert!(is_command(&command.name));
        assert!(comment.contains(&*command.name));
        let _ = PlatformCommand::parse(command);
    }
});
