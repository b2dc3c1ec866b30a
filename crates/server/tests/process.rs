//! The server as a process: signals, and health while it recovers.
//!
//! The process is this test program again, running the one test that is ignored otherwise.

mod support;

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use sapwood_server::{Config, Inputs, Profile, RunError};
use support::{get, open_http2, small, until};

/// The child's folder: the configuration file, and where it says that it is ready.
const FOLDER: &str = "SERVER_TEST_FOLDER";
/// The child's `--set` flags, one a line.
const SET: &str = "SERVER_TEST_SET";
/// How the child ends when a second signal cut its drain short.
const INTERRUPTED: i32 = 42;

#[test]
#[ignore = "it is the process that the other tests start"]
fn child() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("is set"));
    let mut inputs = Inputs::new(Profile::Serve);
    inputs.file = Some(folder.join("sapwood.toml"));
    let set = std::env::var(SET).expect("is set");
    inputs.flags.set = set.lines().map(str::to_owned).collect();
    let config = Config::load(&inputs).expect("is valid");
    let stopped = sapwood_server::run(config, |ready| {
        let http = ready.http.expect("http is on");
        fs::write(
            folder.join("ready.new"),
            format!("{} {http}", ready.listen()),
        )
        .expect("writes");
        fs::rename(folder.join("ready.new"), folder.join("ready")).expect("renames");
    });
    match stopped {
        Ok(()) => {}
        Err(RunError::Interrupted { .. }) => std::process::exit(INTERRUPTED),
        Err(error) => panic!("{error}"),
    }
}

struct Process {
    child: Child,
    folder: PathBuf,
}

impl Process {
    fn spawn(folder: &Path, set: &[&str]) -> Self {
        if !folder.join("sapwood.toml").exists() {
            fs::write(folder.join("sapwood.toml"), "").expect("writes");
        }
        let _ = fs::remove_file(folder.join("ready"));
        let mut flags = small(folder);
        flags.extend(set.iter().map(|setting| (*setting).to_owned()));
        let log = fs::File::create(folder.join("log")).expect("creates");
        let child = Command::new(std::env::current_exe().expect("runs"))
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .env(FOLDER, folder)
            .env(SET, flags.join("\n"))
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
            .expect("starts");
        Self {
            child,
            folder: folder.to_owned(),
        }
    }

    /// The addresses of gRPC and HTTP, once it serves.
    fn ready(&self) -> (SocketAddr, SocketAddr) {
        until("readiness", || self.folder.join("ready").exists());
        let line = fs::read_to_string(self.folder.join("ready")).expect("reads");
        let (listen, http) = line.split_once(' ').expect("has both");
        (
            listen.parse().expect("is an address"),
            http.parse().expect("is an address"),
        )
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("is alive");
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("the end", || {
            status = self.child.try_wait().expect("is our child");
            status.is_some()
        });
        status.expect("ended")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).expect("reads")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[test]
fn sigterm_and_sigint_drain_and_leave_a_clean_directory() {
    let folder = folder();
    for signal in [Signal::TERM, Signal::INT] {
        let mut process = Process::spawn(folder.path(), &["log.format=json"]);
        let (_, http) = process.ready();
        assert_eq!(get(http, "/readyz").0, 200);
        process.signal(signal);
        assert_eq!(process.wait().code(), Some(0), "{}", process.log());
        let log = process.log();
        for event in [
            "broker.started",
            "broker.ready",
            "broker.draining",
            "broker.stopped",
        ] {
            assert!(
                log.contains(&format!("\"event\":\"{event}\"")),
                "no {event}: {log}"
            );
        }
    }
}

#[test]
fn while_it_drains_it_is_not_ready_and_a_second_signal_ends_it_at_once() {
    let folder = folder();
    let mut process = Process::spawn(folder.path(), &["limits.drain_timeout_ms=60s"]);
    let (listen, http) = process.ready();
    // It answers nothing, not even the ping by which HTTP/2 says goodbye: the drain waits for it.
    let _mute = open_http2(listen);
    process.signal(Signal::TERM);
    until("the drain", || {
        get(http, "/readyz") == (503, r#"{"status":"draining"}"#.to_owned())
    });
    assert_eq!(get(http, "/livez").0, 200);
    let refused = TcpStream::connect(listen).expect_err("takes nothing new");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let began = Instant::now();
    process.signal(Signal::TERM);
    assert_eq!(
        process.wait().code(),
        Some(INTERRUPTED),
        "{}",
        process.log()
    );
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn readyz_says_recovering_while_the_directory_is_opened_and_sigterm_ends_that_at_once() {
    let folder = folder();
    // Opening a pipe that nobody writes to blocks: a recovery as slow as can be.
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("creates");
    let meta = data.join("sapwood.meta");
    mknodat(CWD, &meta, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("makes a pipe");
    let http = TcpListener::bind("127.0.0.1:0")
        .and_then(|free| free.local_addr())
        .expect("binds");
    let mut process = Process::spawn(folder.path(), &[&format!("http.address={http}")]);
    until("the http listener", || TcpStream::connect(http).is_ok());
    for _ in 0..2 {
        let (status, body) = get(http, "/readyz");
        assert_eq!(status, 503);
        assert!(
            body.starts_with(r#"{"status":"recovering","partitions_done":0,"#),
            "{body}"
        );
    }
    assert_eq!(get(http, "/livez").0, 200);
    let (_, metrics) = get(http, "/metrics");
    assert!(
        metrics.contains("sapwood_state{state=\"recovering\"} 1\n"),
        "{metrics}"
    );
    assert!(!folder.path().join("ready").exists());
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0), "{}", process.log());
}

#[test]
fn sighup_applies_the_log_level_and_says_what_needs_a_restart() {
    let folder = folder();
    let file = folder.path().join("sapwood.toml");
    fs::write(&file, "log.level = \"info\"\ntopics.partitions = 1\n").expect("writes");
    let mut process = Process::spawn(folder.path(), &[]);
    let (listen, _) = process.ready();

    fs::write(&file, "log.level = \"loud\"\n").expect("writes");
    process.signal(Signal::HUP);
    until("the rejection", || {
        process.log().contains("config.rejected")
    });

    fs::write(
        &file,
        "log.level = \"sapwood_server=debug,info\"\ntopics.partitions = 2\n",
    )
    .expect("writes");
    process.signal(Signal::HUP);
    until("the change", || process.log().contains("config.changed"));
    until("the other change", || {
        process.log().contains("config.restart_needed")
    });
    drop(TcpStream::connect(listen).expect("still serves"));
    until("a line of the new level", || {
        process.log().contains("closed before it sent a request")
    });
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0), "{}", process.log());
}

#[test]
fn without_descriptors_accepting_waits_and_goes_on_when_there_are_some() {
    let folder = folder();
    let process = Process::spawn(folder.path(), &[]);
    let (_, http) = process.ready();
    let pid = Pid::from_child(&process.child);
    let open = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()))
        .expect("is alive")
        .count();
    let few = Rlimit {
        current: Some(open as u64),
        maximum: Some(1 << 12),
    };
    prlimit(Some(pid), Resource::Nofile, few).expect("is our child");
    // More than fit: the last ones stay in the kernel's queue.
    let waiting: Vec<TcpStream> = (0..8)
        .map(|_| TcpStream::connect(http).expect("is queued"))
        .collect();
    until("the warning", || {
        process.log().contains("connections.accept_failed")
    });
    let used = cpu_ticks(&process.child);
    std::thread::sleep(Duration::from_millis(500));
    let used = cpu_ticks(&process.child) - used;
    assert!(
        used <= 10,
        "{used} ticks of processor time in half a second of waiting"
    );
    let enough = Rlimit {
        current: Some(1 << 12),
        ..few
    };
    prlimit(Some(pid), Resource::Nofile, enough).expect("is our child");
    assert_eq!(get(http, "/readyz").0, 200);
    drop(waiting);
}

/// Processor time that a process has used, in ticks of a hundredth of a second.
fn cpu_ticks(child: &Child) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("is alive");
    let (_, fields) = stat.rsplit_once(')').expect("has a name");
    fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().expect("a number"))
        .sum()
}

#[test]
fn after_sigkill_the_next_start_recovers() {
    let folder = folder();
    let mut process = Process::spawn(folder.path(), &[]);
    process.ready();
    process.signal(Signal::KILL);
    assert_eq!(process.wait().code(), None);
    let mut process = Process::spawn(folder.path(), &[]);
    process.ready();
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0), "{}", process.log());
}
