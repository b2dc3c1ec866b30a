//! Where the clients' programs are, and what they print.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use serde::Deserialize;

use crate::{
    clients::python,
    harness::{Settings, root, skip},
};

/// The slowest takes half a minute on an idle machine.
const LIMIT: Duration = Duration::from_secs(400);

/// A program that runs the checks of tests/clients/README.md.
#[derive(Debug, Clone, Copy)]
pub(super) enum Program {
    /// tests/python/kafka/with_NAME.py.
    Python(&'static str),
    Kafkajs,
    Rdkafka,
    Java,
    FranzGo,
}

/// How one check went.
#[derive(Debug, Deserialize)]
pub(super) struct Outcome {
    /// Its name, the same for all clients.
    pub(super) check: String,
    ok: serde_json::Value,
    /// What happened, or why the client cannot do it.
    pub(super) detail: String,
}

impl Outcome {
    /// Whether the client can do it; the check passed, if it ran.
    pub(super) fn is_possible(&self) -> bool {
        self.ok == true
    }

    /// A check that passed.
    pub(super) fn done(check: String) -> Self {
        Self {
            check,
            ok: true.into(),
            detail: String::new(),
        }
    }

    /// A check of something that the client cannot do.
    pub(super) fn impossible(check: String, reason: String) -> Self {
        Self {
            check,
            ok: "n/a".into(),
            detail: reason,
        }
    }

    fn has_failed(&self) -> bool {
        self.ok == false
    }
}

/// What a program printed.
#[derive(Debug)]
pub(super) struct Report {
    /// The client's name and version.
    pub(super) client: String,
    pub(super) outcomes: Vec<Outcome>,
}

impl Program {
    /// The command without the broker's address; `None` where something for it is not installed.
    pub(super) fn command(self) -> Option<Command> {
        let clients = installed();
        let found = |path: PathBuf| path.exists().then_some(path);
        match self {
            Self::Python(name) => {
                let program = root().join(format!("tests/python/kafka/with_{name}.py"));
                let module = match name {
                    "kafka_python" => "kafka",
                    "aiokafka" => "aiokafka",
                    _ => "confluent_kafka",
                };
                let python = python().filter(|python| has_module(python, module))?;
                if name == "kcat" && !runs("kcat", "-V") {
                    return None;
                }
                let mut command = Command::new(python);
                // Nothing is written into the repository.
                command.arg("-B").arg(program);
                Some(command)
            }
            Self::Kafkajs => {
                let modules = found(clients.join("kafkajs/node_modules"))?;
                let mut command = Command::new("node");
                let program = root().join("tests/clients/kafkajs/checks.js");
                command.env("NODE_PATH", modules).arg(program);
                Some(command)
            }
            Self::Rdkafka => found(clients.join("rdkafka/debug/rdkafka-checks")).map(Command::new),
            Self::Java => {
                let mut command = java(jars()?);
                command.arg(root().join("tests/clients/java/Checks.java"));
                Some(command)
            }
            Self::FranzGo => found(clients.join("franz-go")).map(Command::new),
        }
    }

    /// The command of a member of a group, without its arguments. What has to be compiled for it is kept
    /// in this folder. `None` where something is not installed.
    ///
    /// # Panics
    /// When it does not compile.
    pub(super) fn member(self, folder: &Path) -> Option<Command> {
        let mut command = match self {
            // Members are started again and again: it is compiled once.
            Self::Java => {
                let mut path = jars()?;
                let classes = folder.join("classes");
                if !classes.exists() {
                    compile(&path, &classes);
                }
                path.push(":");
                path.push(classes);
                let mut command = java(path);
                command.arg("Group");
                command
            }
            _ => self.command()?,
        };
        command.arg("group");
        Some(command)
    }

    /// Runs the checks against a broker of their own; `None` where the client is not installed.
    ///
    /// # Panics
    /// When a check fails, or the program does.
    pub(super) fn run(self) -> Option<Report> {
        let Some(mut command) = self.command() else {
            skip(&format!(
                "{self:?} is not installed; tests/clients/install.sh and .ci/run install clients"
            ));
            return None;
        };
        let settings = Settings::new(&[]);
        let broker = settings.start();
        command.arg(settings.address()).arg("checks");
        let (stdout, stderr) = output(command);
        let report = Report::parse(&stdout);
        let failed: Vec<_> = report.outcomes.iter().filter(|o| o.has_failed()).collect();
        assert!(
            failed.is_empty() && !report.outcomes.is_empty(),
            "{}: {failed:#?}\n{stderr}",
            report.client
        );
        broker.stop();
        settings.verify();
        Some(report)
    }
}

impl Report {
    fn parse(stdout: &str) -> Self {
        #[derive(Deserialize)]
        struct Named {
            client: String,
        }
        let mut lines = stdout.lines();
        let first = lines.next().unwrap_or_default();
        let named: Named = serde_json::from_str(first)
            .unwrap_or_else(|e| panic!("the first line is {first:?}: {e}"));
        let outcome = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|e| panic!("a line is {line:?}: {e}"))
        };
        Self {
            client: named.client,
            outcomes: lines.map(outcome).collect(),
        }
    }
}

/// Where tests/clients/install.sh put the clients: `SAPWOOD_CLIENTS`, or target/clients.
fn installed() -> PathBuf {
    let named = std::env::var_os("SAPWOOD_CLIENTS").map(PathBuf::from);
    named.unwrap_or_else(|| root().join("target/clients"))
}

/// The class path of Kafka's Java client, where it is installed.
fn jars() -> Option<OsString> {
    let folder = installed().join("java");
    let mut path = folder.exists().then_some(OsString::from(folder))?;
    path.push("/*");
    Some(path)
}

fn java(class_path: OsString) -> Command {
    let mut command = Command::new("java");
    // It runs for seconds, and most of them are waiting.
    command.args([
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-cp",
    ]);
    command.arg(class_path);
    command
}

fn compile(class_path: &OsStr, classes: &Path) {
    let compiled = Command::new("javac")
        .arg("-cp")
        .arg(class_path)
        .arg("-d")
        .arg(classes)
        .arg(root().join("tests/clients/java/Group.java"))
        .status();
    let compiled = compiled.expect("javac can be run");
    assert!(compiled.success(), "Group.java does not compile");
}

/// A Python program's command, where this module can be imported.
pub(super) fn with_confluent_kafka(program: &str) -> Option<Command> {
    let Some(python) = python().filter(|python| has_module(python, "confluent_kafka")) else {
        skip("there is no Python with confluent-kafka; .ci/run makes one");
        return None;
    };
    let mut command = Command::new(python);
    command
        .arg("-B")
        .arg(root().join("tests/python/kafka").join(program));
    Some(command)
}

/// Whether kcat can be run; says that the test is skipped when it cannot.
pub(super) fn has_kcat() -> bool {
    let there = runs("kcat", "-V");
    if !there {
        skip("there is no kcat; tests/clients/install.sh installs it");
    }
    there
}

fn has_module(python: &Path, module: &str) -> bool {
    let imported = Command::new(python)
        .args(["-c", &format!("import {module}")])
        .stderr(Stdio::null())
        .status();
    imported.is_ok_and(|status| status.success())
}

fn runs(program: &str, argument: &str) -> bool {
    let run = Command::new(program)
        .arg(argument)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    run.is_ok_and(|status| status.success())
}

/// What a command prints to standard output and to standard error.
///
/// # Panics
/// When it fails or takes longer than the limit.
pub(super) fn output(mut command: Command) -> (String, String) {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let pid = child.id();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody listens after the time limit, when the test has failed.
        let _ = sender.send(child.wait_with_output());
    });
    let output = receiver.recv_timeout(LIMIT).unwrap_or_else(|_| {
        kill(pid);
        panic!("{command:?} takes longer than {LIMIT:?}");
    });
    let output = output.expect("its output can be read");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{stdout}\n{stderr}",
        output.status
    );
    (stdout, stderr)
}

fn kill(pid: u32) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended in this moment.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
