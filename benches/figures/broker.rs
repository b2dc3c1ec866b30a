//! A broker process in a temporary data directory.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use sapwood_client::Client;
use tempfile::TempDir;

use crate::Outcome;

/// Killed and wiped when dropped.
pub(crate) struct Broker {
    child: Child,
    address: String,
    _stdout: BufReader<ChildStdout>,
    _folder: TempDir,
}

impl Broker {
    /// Starts `sapwood serve` with its defaults on free ports and waits until it is ready.
    pub(crate) fn start(binary: &Path) -> Outcome<Self> {
        let folder = TempDir::with_prefix("sapwood-figures-")?;
        let mut child = command(binary, folder.path(), "127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let ready: serde_json::Value = serde_json::from_str(&line)?;
        let address = ready["listen"]
            .as_str()
            .ok_or("no address in the ready line")?
            .to_owned();
        Ok(Self {
            child,
            address,
            _stdout: stdout,
            _folder: folder,
        })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn client(&self) -> Outcome<Client> {
        Ok(Client::new(&self.address)?)
    }

    /// Seconds of CPU that the process has used.
    pub(crate) fn cpu_seconds(&self) -> Outcome<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in parentheses may hold spaces; user and system time are the 12th and 13th after it.
        let (_, fields) = stat
            .rsplit_once(')')
            .ok_or("an unknown form of /proc/PID/stat")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |index: usize| -> Outcome<f64> {
            Ok(fields
                .get(index)
                .ok_or("too few fields in /proc/PID/stat")?
                .parse()?)
        };
        Ok((ticks(11)? + ticks(12)?) / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Anonymous memory of the process in MB (10^6 bytes).
    pub(crate) fn rss_anon_mb(&self) -> Outcome<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line
            .and_then(|line| line.split_whitespace().next())
            .ok_or("no RssAnon")?;
        Ok(kib.parse::<f64>()? * 1024.0 / 1e6)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may be gone already, which the figures have shown.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `sapwood serve` with its defaults.
pub(crate) fn command(binary: &Path, data_dir: &Path, http: &str) -> Command {
    let mut command = Command::new(binary);
    command
        .args([
            "serve",
            "-o",
            "json",
            "--listen",
            "127.0.0.1:0",
            "--http-listen",
            http,
            "--data-dir",
        ])
        .arg(data_dir)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    command
}
