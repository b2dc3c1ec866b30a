//! Members of groups as processes, and what they say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    ops::Range,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;

/// How long anything may take that has no limit of its own, on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);

/// A partition of a topic.
pub(super) type Place = (String, u32);

/// A line of a program.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Assigned {
        partitions: BTreeSet<Place>,
    },
    Records {
        topic: String,
        partition: u32,
        from: u64,
        to: u64,
    },
    Committed {
        topic: String,
        partition: u32,
        offset: u64,
    },
    Closed,
    Error {
        detail: String,
    },
    #[serde(rename = "n/a")]
    NotAvailable {
        detail: String,
    },
}

/// What a member has said so far.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// The partitions that it holds.
    pub(super) held: BTreeSet<Place>,
    /// How often it was told what it holds.
    pub(super) assignments: usize,
    /// What it has read, in the order in which it came.
    pub(super) runs: Vec<(Place, Range<u64>)>,
    /// What it committed last.
    pub(super) committed: BTreeMap<Place, u64>,
    /// Whether it has left its group, as it was told to.
    pub(super) closed: bool,
    /// Why it cannot do what it was asked for.
    pub(super) not_available: Option<String>,
    /// What it could not get over.
    error: Option<String>,
    /// Whether it was killed.
    killed: bool,
    /// Whether it has ended.
    pub(super) ended: bool,
}

impl Said {
    /// What it could not get over.
    fn failure(&self) -> Option<String> {
        let well = self.closed || self.killed || self.not_available.is_some();
        let failed = (self.ended && !well).then(|| "a member ended".to_owned());
        self.error.clone().or(failed)
    }

    fn hear(&mut self, line: &str) {
        match serde_json::from_str(line) {
            Ok(Event::Assigned { partitions }) => {
                self.held = partitions;
                self.assignments += 1;
            }
            Ok(Event::Records {
                topic,
                partition,
                from,
                to,
            }) => {
                self.runs.push(((topic, partition), from..to));
            }
            Ok(Event::Committed {
                topic,
                partition,
                offset,
            }) => {
                self.committed.insert((topic, partition), offset);
            }
            Ok(Event::Closed) => self.closed = true,
            Ok(Event::Error { detail }) => self.error = Some(detail),
            Ok(Event::NotAvailable { detail }) => self.not_available = Some(detail),
            Err(error) => self.error = Some(format!("a line is {line:?}: {error}")),
        }
    }

    /// Whether something came of each partition that it holds, from its run with this number on.
    pub(super) fn reads_all_it_holds(&self, after: usize) -> bool {
        let read: BTreeSet<&Place> = self
            .runs
            .iter()
            .skip(after)
            .map(|(place, _)| place)
            .collect();
        self.held.iter().all(|place| read.contains(place))
    }

    /// The first offset of a partition that came in its run with this number or a later one.
    pub(super) fn first_of(&self, place: &Place, after: usize) -> Option<u64> {
        let mut runs = self.runs.iter().skip(after);
        runs.find(|(read, _)| read == place)
            .map(|(_, run)| run.start)
    }

    /// The end of what it has read of a partition; 0 when nothing.
    pub(super) fn end_of(&self, place: &Place) -> u64 {
        let runs = self.runs.iter().filter(|(read, _)| read == place);
        runs.map(|(_, run)| run.end).max().unwrap_or_default()
    }
}

/// What all members have said, and a bell for whoever waits for more.
type Heard = Arc<(Mutex<Vec<Said>>, Condvar)>;

/// The members of one group, running or not, by number. Those that run are killed with this value.
#[derive(Debug)]
pub(super) struct Members {
    /// For panics: which client, and what it is about.
    about: String,
    scratch: PathBuf,
    heard: Heard,
    processes: Vec<Process>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Members {
    /// None yet. What they print to standard error is kept in the folder `scratch`, which is there.
    pub(super) fn new(about: &str, scratch: PathBuf) -> Self {
        Self {
            about: about.to_owned(),
            scratch,
            heard: Heard::default(),
            processes: Vec::new(),
        }
    }

    /// Starts one more; answers with its number.
    pub(super) fn start(&mut self, mut command: Command) -> usize {
        let number = self.processes.len();
        let stderr = File::create(self.stderr(number)).expect("a file for standard error");
        let mut child = command
            // A program may be several processes: all of them are killed.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let stdin = child.stdin.take();
        self.processes.push(Process { child, stdin });
        lock(&self.heard).push(Said::default());
        let heard = Arc::clone(&self.heard);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { break };
                lock(&heard)[number].hear(&line);
                heard.1.notify_all();
            }
            lock(&heard)[number].ended = true;
            heard.1.notify_all();
        });
        number
    }

    /// What this question is answered with now.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&[Said]) -> T) -> T {
        question(&lock(&self.heard))
    }

    /// Waits until all that was said is enough; answers with how long that took.
    ///
    /// # Panics
    /// When it takes longer than the limit, or a member has met an error or ended by itself.
    #[track_caller]
    pub(super) fn wait(
        &self,
        what: &str,
        limit: Duration,
        is_enough: impl Fn(&[Said]) -> bool,
    ) -> Duration {
        let started = Instant::now();
        let mut all = lock(&self.heard);
        while !is_enough(&all) {
            let failed = all.iter().find_map(Said::failure);
            let left = limit.checked_sub(started.elapsed());
            let (Some(left), None) = (left, &failed) else {
                let summary = summary(&all);
                drop(all);
                self.fail(
                    what,
                    &failed.unwrap_or(format!("not within {limit:?}")),
                    &summary,
                );
            };
            let waited = self.heard.1.wait_timeout(all, left);
            all = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        started.elapsed()
    }

    /// Waits until no member is told anything about its partitions for a while.
    #[track_caller]
    pub(super) fn wait_for_quiet(&self, quiet: Duration) {
        let started = Instant::now();
        let count = |all: &[Said]| all.iter().map(|said| said.assignments).sum::<usize>();
        let mut all = lock(&self.heard);
        let (mut last, mut since) = (count(&all), Instant::now());
        while let Some(left) = quiet.checked_sub(since.elapsed()) {
            assert!(
                started.elapsed() < PATIENCE,
                "{}: no quiet: {}",
                self.about,
                summary(&all)
            );
            let waited = self.heard.1.wait_timeout(all, left);
            all = waited.unwrap_or_else(PoisonError::into_inner).0;
            if count(&all) != last {
                (last, since) = (count(&all), Instant::now());
            }
        }
    }

    /// Whether a member ended at once because its client cannot do what it was asked for; waits until
    /// it is known.
    #[track_caller]
    pub(super) fn not_available(&self, number: usize) -> Option<String> {
        self.wait("a first word", PATIENCE, |all| {
            all[number].assignments > 0 || all[number].ended
        });
        self.ask(|all| all[number].not_available.clone())
    }

    /// `kill -9`, and waits until it is gone and all it said is heard.
    pub(super) fn kill(&mut self, number: usize) {
        lock(&self.heard)[number].killed = true;
        self.processes[number].end();
        self.wait("the end of one killed", PATIENCE, |all| all[number].ended);
    }

    /// Has members leave their group, and waits until they have ended well.
    #[track_caller]
    pub(super) fn close(&mut self, numbers: &[usize]) {
        for number in numbers {
            let mut stdin = self.processes[*number]
                .stdin
                .take()
                .expect("it was not closed yet");
            stdin.write_all(b"close\n").expect("it reads its input");
        }
        self.wait("a good end", PATIENCE, |all| {
            numbers.iter().all(|number| all[*number].ended)
        });
        for number in numbers {
            let closed = self.ask(|all| all[*number].closed);
            let status = self.processes[*number]
                .child
                .wait()
                .expect("the process is ours");
            if !closed || !status.success() {
                self.fail("a good end", &status.to_string(), &self.ask(summary));
            }
        }
    }

    fn stderr(&self, number: usize) -> PathBuf {
        self.scratch.join(format!("member-{number}.err"))
    }

    #[track_caller]
    fn fail(&self, what: &str, why: &str, summary: &str) -> ! {
        let mut errors = String::new();
        for number in 0..self.processes.len() {
            let text = fs::read(self.stderr(number)).unwrap_or_default();
            let text =
                String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
            if !text.is_empty() {
                errors = format!("{errors}\nstandard error of member {number}: {text}");
            }
        }
        panic!(
            "{}: waited for {what}: {why}\n{summary}{errors}",
            self.about
        );
    }
}

impl Process {
    fn end(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let (Some(pid), Ok(None)) = (pid, self.child.try_wait()) {
            // It may have ended in this moment.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// What members hold and have read, for people.
fn summary(all: &[Said]) -> String {
    let mut text = String::new();
    for (number, said) in all.iter().enumerate() {
        let read: BTreeMap<&Place, u64> = said
            .runs
            .iter()
            .map(|(place, run)| (place, run.end))
            .collect();
        text = format!(
            "{text}\nmember {number}: holds {:?} after {} assignments, has read up to {read:?}, committed \
             {:?}, closed {}, ended {}, n/a {:?}",
            said.held,
            said.assignments,
            said.committed,
            said.closed,
            said.ended,
            said.not_available
        );
    }
    text
}

fn lock(heard: &Heard) -> std::sync::MutexGuard<'_, Vec<Said>> {
    heard.0.lock().unwrap_or_else(PoisonError::into_inner)
}
