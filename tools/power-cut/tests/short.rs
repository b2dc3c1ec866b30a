//! A few cuts, and proof that broken promises are noticed. Needs root, FUSE and loop devices.

#[path = "../../../tests/harness/binary.rs"]
mod binary;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Mutex, PoisonError},
};

/// One at a time: what is checked depends on how far the load comes.
static TURN: Mutex<()> = Mutex::new(());

fn root() -> PathBuf {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR"));
    tool.ancestors()
        .nth(2)
        .expect("the tool is two folders deep")
        .to_owned()
}

/// Why power cannot be cut here.
fn obstacle() -> Option<String> {
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if let Err(error) = File::options().read(true).write(true).open(device) {
            return Some(format!("{device}: {error}"));
        }
    }
    for tool in ["unshare", "setpriv", "losetup", "mkfs.ext4"] {
        if let Err(error) = Command::new(tool).arg("--version").output() {
            return Some(format!("{tool}: {error}"));
        }
    }
    // An ordinary user may be allowed to open the devices, and still must not mount.
    let namespace = Command::new("unshare").args(["--mount", "true"]).output();
    match namespace {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

/// Runs the tool, or says why it cannot run here.
fn power_cut(args: &[&str]) -> Option<Output> {
    if let Some(reason) = obstacle() {
        let never = std::env::var("SAPWOOD_TESTS_SKIP").is_ok_and(|value| value == "never");
        assert!(!never, "skipped, where nothing may be: {reason}");
        let thread = std::thread::current();
        eprintln!("SKIPPED {}: {reason}", thread.name().unwrap_or("a test"));
        return None;
    }
    let keep = Path::new(env!("CARGO_TARGET_TMPDIR")).join("power-cut-failed");
    let binary = binary::binary();
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(env!("CARGO_BIN_EXE_power-cut"))
        .args(args)
        .arg("--bin")
        .arg(binary)
        .arg("--keep")
        .arg(&keep)
        .output()
        .expect("the tool can be run");
    drop(turn);
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    if output.status.code() != Some(1) || args.len() > 4 {
        // Kept only where a promise was broken that should not be.
        let _ = fs::remove_dir_all(&keep);
    }
    Some(output)
}

#[test]
fn what_was_acknowledged_or_read_survives_power_cuts() {
    let mut args = vec!["--cuts", "2", "--load-ms", "500"];
    let seed = std::env::var("SAPWOOD_TEST_SEED").ok();
    if let Some(seed) = &seed {
        args.extend(["--seed", seed]);
    }
    if let Some(output) = power_cut(&args) {
        assert!(output.status.success(), "{}", output.status);
    }
}

#[test]
fn a_disk_that_forgets_what_it_flushed_is_noticed() {
    let args = ["--cuts", "4", "--load-ms", "400", "--lying-disk"];
    if let Some(output) = power_cut(&args) {
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn records_that_are_only_in_the_page_cache_are_missed() {
    let args = ["--cuts", "4", "--load-ms", "900", "--judge-os-as-fsync"];
    if let Some(output) = power_cut(&args) {
        assert_eq!(output.status.code(), Some(1));
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(stdout.contains("records are lost"), "{stdout}");
    }
}
