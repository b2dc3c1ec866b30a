//! Which crate may know which: a directed graph without cycles, held against the manifests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use super::read;
use crate::harness::root;

/// Each crate and the crates of this workspace that it may depend on. Lower ones come first, so that
/// the table itself cannot hold a cycle. `model <- record <- log <- broker <- {grpc, http} <- server
/// <- cli`; `rpc <- {grpc, client}`; `client <- {bench, cli}`; `kafka-wire <- bench`. The front doors never touch
/// `log`.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("record", &["model"]),
    ("log", &["model", "record"]),
    ("sim", &["model", "record", "log"]),
    ("group", &["model"]),
    ("broker", &["model", "record", "log", "group"]),
    ("kafka-wire-derive", &[]),
    ("kafka-wire", &["kafka-wire-derive"]),
    ("rpc", &[]),
    ("grpc", &["model", "record", "broker", "rpc"]),
    ("kafka", &["model", "record", "broker", "kafka-wire"]),
    ("http", &["model", "broker"]),
    ("server", &["model", "broker", "grpc", "kafka", "http"]),
    ("client", &["model", "record", "rpc"]),
    ("bench", &["model", "record", "kafka-wire", "client"]),
    // `log` is for `storage inspect|verify`, which look at the files of a stopped broker.
    ("cli", &["model", "log", "client", "bench", "server"]),
];

/// Crates that nothing but tests and benchmarks may depend on.
const DEV_ONLY: &[&str] = &["sim"];

/// Packages of others that must not come anywhere near a crate, at any depth.
const NEVER_NEAR: &[(&str, &[&str])] = &[
    ("model", &["tokio", "tonic", "prost", "hyper", "axum"]),
    ("record", &["tokio", "tonic", "prost", "hyper", "axum"]),
    ("log", &["tokio", "tonic", "prost", "hyper", "axum"]),
    ("group", &["tokio", "tonic", "prost", "hyper", "axum"]),
    ("broker", &["tonic", "prost", "hyper", "axum"]),
    ("client", &["axum", "clap", "sapwood-log", "sapwood-broker"]),
    ("rpc", &["axum", "sapwood-broker"]),
    (
        "kafka-wire",
        &["tokio", "tonic", "prost", "uuid", "sapwood-model"],
    ),
];

#[test]
fn crates_depend_only_on_crates_that_they_may_know() {
    let mut known = BTreeSet::new();
    for (name, may_know) in MAY_KNOW {
        assert!(
            may_know.iter().all(|lower| known.contains(lower)),
            "{name} comes before a lower one"
        );
        known.insert(*name);
    }
    let mut found = BTreeSet::new();
    for (name, manifest) in manifests() {
        let entry = MAY_KNOW.iter().find(|(known, _)| *known == name);
        let (_, may_know) = entry.unwrap_or_else(|| panic!("say in MAY_KNOW what {name} may know"));
        for lower in dependencies(&manifest) {
            assert!(
                may_know.contains(&lower.as_str()),
                "{name} must not depend on {lower}"
            );
            assert!(
                !DEV_ONLY.contains(&lower.as_str()),
                "{name} depends on {lower}, which is for tests"
            );
        }
        found.insert(name);
    }
    let missing: Vec<_> = known
        .iter()
        .filter(|name| !found.contains(**name))
        .collect();
    assert!(
        missing.is_empty(),
        "MAY_KNOW speaks of crates that are not there: {missing:?}"
    );
}

#[test]
fn the_check_sees_the_dependencies_of_every_section_but_the_tests() {
    let manifest = "[dependencies]\nsapwood-model.workspace = true\n\
        [build-dependencies]\nsapwood-rpc = { path = \"../rpc\" }\n\
        [dev-dependencies]\nsapwood-sim.workspace = true\n\
        [target.'cfg(unix)'.dependencies]\nsapwood-log.workspace = true\n";
    let manifest: toml::Table = manifest.parse().expect("it is well formed");
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(dependencies(&manifest), set(&["log", "model", "rpc"]));
}

#[test]
fn synchronous_crates_do_not_reach_asynchronous_ones_at_any_depth() {
    for (name, never) in NEVER_NEAR {
        let package = format!("sapwood-{name}");
        let tree = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--locked",
                "--offline",
                "--edges",
                "normal",
                "--prefix",
                "none",
            ])
            .args(["--format", "{p}", "--package", &package])
            .current_dir(root())
            .output()
            .expect("cargo can be run");
        let stderr = String::from_utf8_lossy(&tree.stderr);
        assert!(tree.status.success(), "cargo tree: {stderr}");
        let stdout = String::from_utf8_lossy(&tree.stdout);
        let packages: BTreeSet<&str> = stdout
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert!(packages.contains(package.as_str()), "{stdout}");
        for other in *never {
            assert!(!packages.contains(other), "{package} depends on {other}");
        }
    }
}

#[test]
fn every_crate_takes_version_and_lints_from_the_workspace() {
    for (name, manifest) in manifests() {
        let inherits = |table: &str, key: &str| {
            let value = manifest.get(table).and_then(|table| table.get(key));
            let value = value.and_then(|value| value.get("workspace").or(Some(value)));
            value.and_then(toml::Value::as_bool) == Some(true)
        };
        assert!(
            inherits("lints", "workspace"),
            "{name} does not take the workspace's lints"
        );
        for key in ["version", "edition", "rust-version", "license"] {
            assert!(
                inherits("package", key),
                "{name} does not take the workspace's {key}"
            );
        }
        let package = manifest["package"]["name"].as_str();
        assert_eq!(package, Some(format!("sapwood-{name}").as_str()));
    }
}

/// The manifest of each crate, by its folder.
fn manifests() -> BTreeMap<String, toml::Table> {
    let folders = fs::read_dir(root().join("crates")).expect("there are crates");
    let manifest = |folder: fs::DirEntry| {
        let path = folder.path().join("Cargo.toml");
        let name = folder
            .file_name()
            .into_string()
            .expect("folders have plain names");
        let parsed = read(&path)
            .parse()
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (name, parsed)
    };
    folders
        .map(|folder| manifest(folder.expect("the folder can be read")))
        .collect()
}

/// The crates of this workspace that a manifest names, but for its tests; without the prefix.
fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    let mut tables: Vec<&toml::Table> = vec![manifest];
    if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
        tables.extend(targets.values().filter_map(toml::Value::as_table));
    }
    let mut names = BTreeSet::new();
    for table in tables {
        for section in ["dependencies", "build-dependencies"] {
            let Some(section) = table.get(section).and_then(toml::Value::as_table) else {
                continue;
            };
            names.extend(
                section
                    .keys()
                    .filter_map(|name| name.strip_prefix("sapwood-")),
            );
        }
    }
    names.into_iter().map(str::to_owned).collect()
}
