//! A broker whose system calls fail on request: `tools/faults/faults.c` stands between it and the
//! kernel.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use super::{Settings, root};

/// The rules for one broker, and the trace of its calls on its data directory.
#[derive(Debug)]
pub(crate) struct Faults {
    rules: PathBuf,
    trace: PathBuf,
}

/// One call on a file of the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// `write`, `sync` and so on, as `tools/faults/faults.c` names them.
    pub(crate) name: String,
    /// Relative to the data directory; `.` for itself.
    pub(crate) path: String,
    pub(crate) position: u64,
    pub(crate) bytes: u64,
    /// `ok` when it went to the kernel, else the error that it got instead.
    pub(crate) result: String,
}

impl Faults {
    /// Puts the layer under a broker that is not started yet. The data directory must not be moved
    /// afterwards.
    ///
    /// # Errors
    /// Why there is no such layer here: no C compiler, or a kernel that does not let it.
    pub(crate) fn under(settings: Settings) -> Result<(Settings, Self), String> {
        static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let program = PROGRAM.get_or_init(build).clone()?;
        // The layer compares real paths, which a folder has only once it exists.
        fs::create_dir_all(settings.data_dir()).expect("the data directory can be made");
        let faults = Self {
            rules: settings.scratch().join("faults.rules"),
            trace: settings.scratch().join("faults.trace"),
        };
        let (rules, trace) = (faults.rules.clone(), faults.trace.clone());
        let dir = settings.data_dir().to_owned();
        let layer = [program, dir, rules, trace, "--".into()].map(OsString::from);
        Ok((settings.run_by(layer.into()), faults))
    }

    /// From the next call on these rules hold, and no others. Their syntax is that of
    /// `tools/faults/faults.c`.
    pub(crate) fn set(&self, rules: &[&str]) {
        let new = self.rules.with_extension("new");
        fs::write(&new, rules.join("\n") + "\n").expect("the rules can be written");
        fs::rename(&new, &self.rules).expect("the rules can be replaced");
    }

    /// Every call so far, oldest first.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let text = fs::read_to_string(&self.trace).unwrap_or_default();
        text.lines().filter_map(call).collect()
    }

    /// How many calls there were so far: what comes later is `calls()[this..]`.
    pub(crate) fn count(&self) -> usize {
        self.calls().len()
    }

    /// The calls that got an error from the layer.
    pub(crate) fn failed(&self) -> Vec<Call> {
        let mut calls = self.calls();
        calls.retain(|call| call.result != "ok");
        calls
    }
}

/// `None` for a last line that is only half there.
fn call(line: &str) -> Option<Call> {
    let mut words = line.split(' ');
    let name = words.next()?.to_owned();
    let path = words.next()?.to_owned();
    let position: i64 = words.next()?.parse().ok()?;
    let bytes: i64 = words.next()?.parse().ok()?;
    let result = words.next()?.to_owned();
    let (position, bytes) = (position.max(0).unsigned_abs(), bytes.max(0).unsigned_abs());
    Some(Call {
        name,
        path,
        position,
        bytes,
        result,
    })
}

/// Compiles the layer beside the test's own binary and tries it.
fn build() -> Result<PathBuf, String> {
    let source = root().join("tools/faults/faults.c");
    let test = std::env::current_exe().map_err(|e| e.to_string())?;
    let program = test.with_extension("faults");
    let fresh = test.with_extension(format!("faults-{}", std::process::id()));
    let compiled = Command::new("cc")
        .args(["-O1", "-Wall", "-Wextra", "-o"])
        .args([&fresh, &source])
        .output()
        .map_err(|e| format!("there is no C compiler: {e}"))?;
    if !compiled.status.success() {
        let errors = String::from_utf8_lossy(&compiled.stderr);
        return Err(format!("{} does not compile: {errors}", source.display()));
    }
    fs::rename(&fresh, &program).map_err(|e| e.to_string())?;
    try_out(&program)?;
    Ok(program)
}

fn try_out(program: &Path) -> Result<(), String> {
    let tried = Command::new(program)
        .args(["/", "/dev/null", "/dev/null", "--", "true"])
        .output()
        .map_err(|e| e.to_string())?;
    match tried.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&tried.stderr).trim().to_owned()),
    }
}
