//! What holds for every source file.

use std::collections::BTreeSet;

use super::{crate_files, files_below, read, shown};
use crate::harness::root;

/// A file past this wants to be two.
const LINES_MAX: usize = 600;

/// The one file of a crate that may hold `unsafe`, for the crates that need it.
const UNSAFE: &[&str] = &["crates/log/src/mmap.rs"];

#[test]
fn no_source_file_is_longer_than_600_lines() {
    let long = crate_files("src")
        .into_iter()
        .chain(crate_files("tests"))
        .filter_map(|path| {
            let lines = read(&path).lines().count();
            (lines > LINES_MAX).then(|| format!("{} has {lines} lines", shown(&path)))
        });
    let long: Vec<String> = long.collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn unsafe_stands_in_one_file_of_a_crate_with_its_reasons() {
    let mut found = BTreeSet::new();
    for path in crate_files("src") {
        let text = read(&path);
        let lines: Vec<&str> = text.lines().collect();
        for (index, _) in lines
            .iter()
            .enumerate()
            .filter(|(_, line)| opens_unsafe(line))
        {
            let name = shown(&path);
            assert!(
                UNSAFE.contains(&name.as_str()),
                "{name}:{}: unsafe",
                index + 1
            );
            assert!(
                is_explained(&lines[..index]),
                "{name}:{}: no SAFETY above",
                index + 1
            );
            found.insert(name);
        }
    }
    assert_eq!(
        found,
        UNSAFE.iter().map(|name| (*name).to_owned()).collect(),
        "update UNSAFE"
    );
}

#[test]
fn the_check_for_unsafe_tells_code_from_talk() {
    assert!(opens_unsafe("    unsafe { call() }"));
    assert!(opens_unsafe("unsafe impl Send for Mapping {}"));
    assert!(opens_unsafe("let x = unsafe { y };"));
    assert!(!opens_unsafe("// unsafe is elsewhere"));
    assert!(!opens_unsafe(
        "#![allow(unsafe_code, reason = \"this file\")]"
    ));
    assert!(is_explained(&[
        "// SAFETY: because",
        "// of this",
        "let x ="
    ]));
    assert!(!is_explained(&[
        "// SAFETY: because",
        "",
        "fn other() {}",
        ""
    ]));
}

#[test]
fn nothing_is_left_unfinished() {
    // Written in parts, so that this file does not find itself.
    let marks = [
        ["to", "do!("],
        ["unimple", "mented!("],
        ["TO", "DO"],
        ["FIX", "ME"],
        ["#[ig", "nore]"],
    ];
    refuse(&marks.map(|parts| parts.concat()));
}

#[test]
fn the_repository_speaks_of_nothing_outside_of_it() {
    let marks = [
        ["../sha", "red"],
        ["/wo", "rk/"],
        ["issues ", "show"],
        ["/root", "/"],
        ["/home", "/"],
    ];
    refuse(&marks.map(|parts| parts.concat()));
}

/// Fails when a text file of the repository holds one of these.
fn refuse(marks: &[String]) {
    let mut found = Vec::new();
    for path in files_below(&root()) {
        let extension = path
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default();
        let is_text = matches!(
            extension,
            "rs" | "md" | "toml" | "sh" | "py" | "proto" | "txt"
        ) || path.ends_with(".ci/run");
        if !is_text {
            continue;
        }
        for (index, line) in read(&path).lines().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| line.contains(*mark)) {
                found.push(format!("{}:{}: {mark}", shown(&path), index + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Whether a line of code uses the keyword.
fn opens_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .any(|word| word == "unsafe")
}

/// Whether the comment that says why stands above, before the statement's first line.
fn is_explained(above: &[&str]) -> bool {
    let mut lines = above.iter().rev().map(|line| line.trim_start());
    let near = lines.by_ref().take(12).take_while(|line| !line.is_empty());
    near.into_iter().any(|line| {
        ["// SAFETY:", "/// # Safety"]
            .iter()
            .any(|mark| line.starts_with(mark))
    })
}
