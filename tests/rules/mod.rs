//! Rules about the repository itself, held against its files.

mod crates;
mod documents;
mod sources;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::harness::root;

/// Every file below a folder, but for what git does not keep, sorted.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if matches!(name, ".git" | "target" | "sapwood-data" | "__pycache__") {
                continue;
            }
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    files
}

/// The Rust files below `crates/*/src` (or of another folder of each crate).
fn crate_files(folder: &str) -> Vec<PathBuf> {
    let crates = root().join("crates");
    let files = files_below(&crates).into_iter();
    let is_source = |path: &PathBuf| {
        let inner = path.strip_prefix(&crates).expect("it lies below");
        inner
            .components()
            .nth(1)
            .is_some_and(|c| c.as_os_str() == folder)
            && path.extension().is_some_and(|extension| extension == "rs")
    };
    files.filter(is_source).collect()
}

/// A path as it is written in this repository.
fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
