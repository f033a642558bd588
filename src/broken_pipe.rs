//! A reader that goes away, as in `tally config show | head -1`, ends a command without a word.
//!
//! `println!` panics when nobody reads any more, and a panic aborts this program. The usual cure is the default
//! action of SIGPIPE, but the clients here write to sockets with `writev`, which raises that signal as well: a
//! branch that hangs up would end a whole load run. So the panic is told by its words instead.

use std::process::exit;

/// What a shell says of a program that SIGPIPE ended: 128 + 13.
const EXIT_CODE: i32 = 141;

/// For the rest of this process. Not for the server, which prints nothing that anybody pipes.
pub(crate) fn end_quietly() {
    let otherwise = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str().is_some_and(is_broken_pipe) {
            exit(EXIT_CODE);
        }
        otherwise(panic);
    }));
}

/// Whether a panic is that of `print!` or `eprint!` into a pipe that nobody reads. tests/broken_pipe.rs sees to it
/// that these stay the standard library's words.
fn is_broken_pipe(message: &str) -> bool {
    message.starts_with("failed printing to std") && message.contains("Broken pipe")
}
