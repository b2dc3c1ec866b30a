//! A broker as a process: started, killed, started again in the same place.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sapwood_client::Client;
use tempfile::TempDir;

use super::{Http, Random, Run, binary, run};

/// A debug build on a busy machine recovers slowly; what takes longer than this hangs.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Where and how a broker runs, the same at every start.
#[derive(Debug)]
pub(crate) struct Settings {
    scratch: TempDir,
    data_dir: PathBuf,
    port: u16,
    sets: Vec<String>,
    /// A program that runs the broker, with its arguments; empty for none.
    run_by: Vec<OsString>,
}

impl Settings {
    /// A data directory that is removed with this value, and a free port. `sets` are
    /// `section.key=value`.
    ///
    /// The port is below those that the kernel hands out, so that nobody gets it while the broker is
    /// down between two starts.
    pub(crate) fn new(sets: &[&str]) -> Self {
        let scratch = TempDir::with_prefix("sapwood-tests-").expect("a folder for the broker");
        Self {
            data_dir: scratch.path().join("data"),
            scratch,
            port: free_port(),
            sets: sets.iter().map(|set| (*set).to_owned()).collect(),
            run_by: Vec::new(),
        }
    }

    /// Keeps the data elsewhere.
    pub(crate) fn with_data_dir(mut self, data_dir: &Path) -> Self {
        data_dir.clone_into(&mut self.data_dir);
        self
    }

    /// Adds a `section.key=value`.
    pub(crate) fn set(mut self, set: String) -> Self {
        self.sets.push(set);
        self
    }

    /// Has the broker run by another program, which must become it.
    pub(crate) fn run_by(mut self, program: Vec<OsString>) -> Self {
        self.run_by = program;
        self
    }

    /// A folder for files of the test, beside the data directory.
    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// For `-b`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A client of the broker, whether it runs or not.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.address()).expect("the address is well formed")
    }

    /// Runs a command against the broker.
    pub(crate) fn cli(&self, args: &[&str], input: &[u8]) -> Run {
        let address = self.address();
        let args: Vec<&str> = ["-b", &address].iter().chain(args).copied().collect();
        run(&args, input)
    }

    /// Starts the process and does not wait for it.
    pub(crate) fn spawn(&self) -> Broker {
        let log_path = self.scratch.path().join("broker.log");
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .expect("a log file");
        let words: Vec<OsString> = [&self.run_by[..], &[binary().into()]].concat();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.args(["dev", "-o", "json", "--listen", &self.address()]);
        command
            .args(["--http-listen", "127.0.0.1:0", "--data-dir"])
            .arg(&self.data_dir);
        for set in &self.sets {
            command.args(["--set", set]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn();
        Broker {
            child: child.expect("the binary can be started"),
            log_path,
            http: None,
            stdout: None,
        }
    }

    /// Starts the process and waits until it is ready.
    pub(crate) fn start(&self) -> Broker {
        let mut broker = self.spawn();
        broker.wait_until_ready();
        broker
    }

    /// Checks the data directory of a stopped broker.
    ///
    /// # Panics
    /// When something is wrong with it.
    pub(crate) fn verify(&self) {
        let data_dir = self.data_dir.to_str().expect("the path is text");
        run(&["storage", "verify", "--data-dir", data_dir], b"").ok();
    }
}

/// A running process. Killed when dropped; a panicking test then shows the end of its log.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    log_path: PathBuf,
    /// Once it is ready.
    http: Option<Http>,
    /// Kept open: the broker must be able to write to it.
    stdout: Option<BufReader<ChildStdout>>,
}

impl Broker {
    /// Whether the process runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The process.
    pub(crate) fn pid(&self) -> Pid {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        pid.expect("a process id")
    }

    /// Its health and its metrics.
    ///
    /// # Panics
    /// Before it was ready.
    pub(crate) fn http(&self) -> &Http {
        self.http.as_ref().expect("the broker was ready")
    }

    /// What it has logged, since the first start in this place.
    pub(crate) fn log(&self) -> String {
        let log = fs::read(&self.log_path).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// `kill -9`, and waits until the process is gone.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// `kill -9`, and the next one in its place.
    pub(crate) fn restart_after_kill(&mut self, settings: &Settings) {
        self.end();
        *self = settings.start();
    }

    /// `kill -9`, something done to what it leaves, and the next one in its place.
    pub(crate) fn restart_after(&mut self, settings: &Settings, something: impl FnOnce()) {
        self.end();
        something();
        *self = settings.start();
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it does not.
    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        self.wait(STOP_TIMEOUT)
    }

    /// SIGTERM, and waits for the drain.
    ///
    /// # Panics
    /// When it hangs or does not end with code 0.
    pub(crate) fn stop(mut self) {
        kill_process(self.pid(), Signal::TERM).expect("the process is ours");
        let status = self.wait(STOP_TIMEOUT);
        assert!(status.success(), "the broker ended with {status}");
    }

    fn wait(&mut self, limit: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the process is ours") {
                return status;
            }
            assert!(
                started.elapsed() < limit,
                "the broker does not stop within {limit:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait_until_ready(&mut self) {
        let stdout = self.child.stdout.take().expect("standard output is a pipe");
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = String::new();
            let read = stdout.read_line(&mut line).map(|_| line);
            // Nobody listens after the time limit, when the test has failed.
            let _ = sender.send((read, stdout));
        });
        let (line, stdout) = receiver
            .recv_timeout(READY_TIMEOUT)
            .expect("the broker is ready within the limit");
        let line = line.expect("the ready line can be read");
        let ready: serde_json::Value = serde_json::from_str(&line)
            .unwrap_or_else(|e| panic!("the ready line is {line:?}: {e}"));
        assert_eq!(ready["pid"], self.child.id(), "{line}");
        let http = ready["http"].as_str().expect("the HTTP port is named");
        self.http = Some(Http(http.to_owned()));
        self.stdout = Some(stdout);
    }

    fn end(&mut self) {
        // It may have ended by itself, which is what some tests are about.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            let log = fs::read(&self.log_path).unwrap_or_default();
            let text = String::from_utf8_lossy(&log[log.len().saturating_sub(8192)..]).into_owned();
            eprintln!("the end of the broker's log:\n{text}");
        }
    }
}

fn free_port() -> u16 {
    let mut random = Random::new(u64::from(std::process::id()), nanos());
    loop {
        let port = u16::try_from(random.within(20_000..32_000)).expect("the range is of ports");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn nanos() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::from(since.subsec_nanos()))
}
