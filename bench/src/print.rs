//! Writes to the terminal. Everything else of this crate gives back text.

/// A line of the result.
#[expect(clippy::print_stdout, reason = "the one place for output")]
pub fn line(text: &str) {
    println!("{text}");
}

/// A line about what goes on.
#[expect(clippy::print_stderr, reason = "the one place for messages")]
pub fn progress(text: &str) {
    eprintln!("{text}");
}

/// Why the program stops.
pub fn problem(text: &str) {
    progress(&format!("coracle-bench: {text}"));
}
