//! Where the binary under test is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::SystemTime,
};

/// The `sapwood` binary, never an older one than its sources: when one of them is newer, it is built.
/// `SAPWOOD_BIN` names another one, which is taken as it is.
///
/// # Panics
/// When it cannot be built.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("SAPWOOD_BIN") {
        Some(path) => path.into(),
        None => built(),
    })
}

fn built() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    // target/<profile>/deps/<test>
    let profile = test
        .ancestors()
        .nth(2)
        .expect("a test lies two folders deep")
        .to_owned();
    let binary = profile.join("sapwood");
    if !is_fresh(&binary) {
        build(&profile);
    }
    assert!(binary.is_file(), "{} was not built", binary.display());
    binary
}

/// Whether the binary is at least as new as every source that cargo noted down for it.
fn is_fresh(binary: &Path) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    let Some(built) = modified(binary) else {
        return false;
    };
    let Ok(noted) = fs::read_to_string(binary.with_extension("d")) else {
        return false;
    };
    let Some((_, sources)) = noted.split_once(": ") else {
        return false;
    };
    let older = |source: &str| modified(Path::new(source)).is_some_and(|m: SystemTime| m <= built);
    sources.split_whitespace().all(older)
}

fn build(profile: &Path) {
    let name = profile
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("debug");
    let name = if name == "debug" { "dev" } else { name };
    let target = profile
        .parent()
        .expect("a profile's folder lies in the target folder");
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--package",
            "sapwood-cli",
            "--bin",
            "sapwood",
        ])
        .args(["--profile", name, "--target-dir"])
        .arg(target)
        .current_dir(super::root())
        .status()
        .expect("cargo can be run");
    assert!(built.success(), "the sapwood binary does not build");
}
