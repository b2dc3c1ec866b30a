//! A broker of the test's own, and commands against it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Sizes that make a start cheap: many of these brokers run side by side.
const SMALL: &[&str] = &[
    "--set",
    "storage.ballast_bytes=1MiB",
    "--set",
    "storage.journal_file_bytes=4MiB",
    "--set",
    "storage.journal_files=2",
];

/// The binary, without anything of the environment that could change what it does.
pub(crate) fn sapwood() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sapwood"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SAPWOOD_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1");
    command
}

/// What a command printed and how it ended.
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Shows at most the beginning of what was printed.
impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let begin = |text: &str| text.chars().take(2_000).collect::<String>();
        write!(
            f,
            "exit {:?}\n{}\n{}",
            self.code,
            begin(&self.out),
            begin(&self.err)
        )
    }
}

impl Done {
    /// Fails the test, with everything that was printed, unless the command succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Fails the test unless the command ended with this exit code, and its error with this code and
    /// these words.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, sw: &str, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        let head = format!("error[{sw}]: ");
        assert!(self.err.contains(&head), "no {head} in {}", self.err);
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in {}", self.err);
        }
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

/// Runs a command to its end with this standard input.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Done {
    let command = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    // A command that fails early does not read its input.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("the writer ends");
    Done {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// A running `sapwood dev` on ports and in a directory of its own. Killed when dropped.
pub(crate) struct Broker {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    folder: TempDir,
    pub(crate) listen: String,
    pub(crate) http: String,
    pub(crate) pid: u32,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::start_in(
            TempDir::new().expect("a temporary folder"),
            "127.0.0.1:0",
            &[],
        )
    }

    /// In a folder of which `data` is the data directory.
    pub(crate) fn start_in(folder: TempDir, listen: &str, more: &[&str]) -> Self {
        let mut child = sapwood()
            .args([
                "dev",
                "-o",
                "json",
                "--listen",
                listen,
                "--http-listen",
                "127.0.0.1:0",
            ])
            .args(SMALL)
            .args(more)
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        stdout
            .read_line(&mut line)
            .expect("standard output can be read");
        assert!(!line.is_empty(), "no ready line: {:?}", child.wait());
        let ready: serde_json::Value = serde_json::from_str(&line).expect("the line is JSON");
        let text = |key: &str| ready[key].as_str().expect("it is text").to_owned();
        assert_eq!(
            text("data_dir"),
            folder.path().join("data").to_str().expect("UTF-8")
        );
        let pid = child.id();
        assert_eq!(ready["pid"], pid);
        let (listen, http) = (text("listen"), text("http"));
        Self {
            child,
            _stdout: stdout,
            folder,
            listen,
            http,
            pid,
        }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A command against this broker.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = sapwood();
        command.args(args).args(["-b", &self.listen]);
        command
    }

    /// Runs a command against this broker.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        run(&mut self.command(args), b"")
    }

    pub(crate) fn run_with(&self, args: &[&str], input: &[u8]) -> Done {
        run(&mut self.command(args), input)
    }

    /// All values of a topic, a line each, as `consume` prints them by default.
    pub(crate) fn values(&self, topic: &str) -> String {
        self.run(&["topic", "consume", topic, "--exit-at-end"])
            .ok()
            .out
    }

    /// Sends a signal and waits for the end. Answers with the data directory's folder.
    pub(crate) fn stop(mut self, signal: i32) -> (ExitStatus, TempDir) {
        send_signal(self.pid, signal);
        let status = wait(&mut self.child);
        let folder = std::mem::replace(&mut self.folder, TempDir::new().expect("a folder"));
        (status, folder)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _: std::io::Result<()> = self.child.kill();
        let _: std::io::Result<ExitStatus> = self.child.wait();
    }
}

pub(crate) const SIGINT: i32 = 2;
pub(crate) const SIGKILL: i32 = 9;
pub(crate) const SIGTERM: i32 = 15;

pub(crate) fn send_signal(pid: u32, signal: i32) {
    let status = Command::new("kill")
        .args([format!("-{signal}"), pid.to_string()])
        .status();
    assert!(status.expect("kill is there").success());
}

/// Waits for a process; a test that hangs says so.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match child.try_wait().expect("it can be waited for") {
            Some(status) => return status,
            None => assert!(Instant::now() < deadline, "the process does not end"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until something holds; a test that hangs says what it waited for.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Everything that can be read from a pipe until its end.
pub(crate) fn read_all(mut pipe: impl Read) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).expect("UTF-8");
    text
}

/// `storage verify` of a stopped broker's folder.
pub(crate) fn verify(folder: &Path) -> Done {
    let mut command = sapwood();
    command
        .args(["storage", "verify", "--data-dir"])
        .arg(folder.join("data"));
    run(&mut command, b"")
}
