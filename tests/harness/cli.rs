//! The command line as a user runs it.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use super::binary;

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Run {
    command: String,
    /// The exit code; -1 when a signal ended it.
    pub(crate) code: i32,
    /// Standard output, byte for byte.
    pub(crate) stdout: Vec<u8>,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Run {
    /// Itself, when the command succeeded.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.ended(0)
    }

    /// Itself, when the command ended with this code.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        let Self {
            command,
            code: actual,
            stdout,
            stderr,
        } = &self;
        let stdout = String::from_utf8_lossy(stdout);
        assert_eq!(
            *actual, code,
            "{command}\nstdout: {stdout}\nstderr: {stderr}"
        );
        self
    }

    /// Standard output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Runs `sapwood` with these arguments and this standard input, and waits for its end.
///
/// # Panics
/// When it cannot be started.
pub(crate) fn run(args: &[&str], input: &[u8]) -> Run {
    let mut child = Command::new(binary())
        .args(args)
        .env_remove("SAPWOOD_BROKERS")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary can be started");
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    let input = input.to_vec();
    // A thread: a command that prints before it has read everything must not block on us.
    let writer = std::thread::spawn(move || {
        // A command that fails early leaves its input unread.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("its output can be read");
    writer.join().expect("the writer does not panic");
    Run {
        command: format!("sapwood {}", args.join(" ")),
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
