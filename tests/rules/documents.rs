//! Documents say what the code says, and packages of others are under the licences that we accept.

use std::{fmt::Write as _, fs, process::Command};

use sapwood_model::Code;

use super::{files_below, read, shown};
use crate::harness::root;

#[test]
fn the_list_of_error_codes_is_what_the_code_says() {
    let path = root().join("docs/errors.md");
    let expected = errors_page();
    if std::env::var_os("SAPWOOD_BLESS").is_some() {
        fs::write(&path, &expected).expect("docs can be written");
    }
    let is_current = read(&path) == expected;
    assert!(
        is_current,
        "docs/errors.md is stale: SAPWOOD_BLESS=1 cargo test -p sapwood-tests error"
    );
}

/// The whole of docs/errors.md.
fn errors_page() -> String {
    let mut page = String::from(
        "# Error codes\n\n\
         A code is the same in gRPC details, in logs, on the command line and here, and never gets \
         another meaning.\n`sapwood explain SW3006` prints an entry. This page is generated from \
         `crates/model/src/code.rs`.\n",
    );
    let mut group = 0;
    for info in Code::all() {
        let number = info.code.number();
        if number / 1000 != group {
            group = number / 1000;
            let title = match group {
                1 => "Usage and configuration",
                2 => "Connections",
                3 => "Topics and partitions",
                4 => "Records",
                5 => "Storage",
                6 => "Consumer groups",
                9 => "The unexpected",
                other => panic!("say what the {other}000s are"),
            };
            let _ = write!(page, "\n## {group}xxx: {title}\n");
        }
        let code = info.code;
        let _ = write!(
            page,
            "\n### {code}: {}\n\n{}\n\n*Next:* {}\n",
            info.title, info.cause, info.next
        );
    }
    page
}

#[test]
fn codes_are_unique_and_say_what_to_do() {
    let mut last = 0;
    for info in Code::all() {
        let number = info.code.number();
        assert!(last < number, "{number} does not come after {last}");
        last = number;
        for text in [info.title, info.cause, info.next] {
            assert!(
                !text.trim().is_empty(),
                "SW{number} leaves something unsaid"
            );
        }
    }
}

#[test]
fn the_architecture_names_every_crate_and_no_other() {
    let text = read(&root().join("ARCHITECTURE.md"));
    for entry in fs::read_dir(root().join("crates")).expect("there are crates") {
        let name = entry.expect("the folder can be read").file_name();
        let name = format!("`crates/{}`", name.to_string_lossy());
        assert!(
            text.contains(&name),
            "ARCHITECTURE.md says nothing of {name}"
        );
    }
    for named in text.split("`crates/").skip(1) {
        let path = named.split('`').next().unwrap_or_default();
        assert!(
            root().join("crates").join(path).exists(),
            "there is no crates/{path}"
        );
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for path in files_below(&root()) {
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = read(&path);
        for link in text.split("](").skip(1) {
            let link = link.split([')', '#']).next().unwrap_or_default();
            let outside = link.is_empty() || link.contains("://") || link.starts_with("mailto:");
            let target = path.parent().expect("a file lies in a folder").join(link);
            if !outside && !target.exists() {
                broken.push(format!("{}: {link}", shown(&path)));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn packages_of_others_are_under_accepted_licences_and_none_is_banned() {
    let deny: toml::Table = read(&root().join("deny.toml"))
        .parse()
        .expect("deny.toml is TOML");
    let texts = |value: &toml::Value| -> Vec<String> {
        let items = value.as_array().expect("a list").iter();
        let name = |item: &toml::Value| {
            item.get("crate")
                .unwrap_or(item)
                .as_str()
                .map(str::to_owned)
        };
        items.map(|item| name(item).expect("a name")).collect()
    };
    let accepted = texts(&deny["licenses"]["allow"]);
    let banned = texts(&deny["bans"]["deny"]);
    assert!(!accepted.is_empty() && !banned.is_empty());
    let packages = packages();
    assert!(packages.len() > 50, "only {} packages", packages.len());
    for (name, licence) in packages {
        assert!(!banned.contains(&name), "{name} is banned by deny.toml");
        assert!(
            is_accepted(&licence, &accepted),
            "{name} is under {licence:?}"
        );
    }
}

#[test]
fn a_licence_expression_is_accepted_when_one_of_its_choices_is() {
    let accepted = [
        "MIT".to_owned(),
        "Apache-2.0".to_owned(),
        "Unicode-3.0".to_owned(),
    ];
    for expression in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/Apache-2.0",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
    ] {
        assert!(is_accepted(expression, &accepted), "{expression}");
    }
    for expression in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR Apache-2.0) AND GPL-3.0",
    ] {
        assert!(!is_accepted(expression, &accepted), "{expression}");
    }
}

/// Name and licence of every package that is built on this machine.
fn packages() -> Vec<(String, String)> {
    let cargo = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO"))
            .args(arguments)
            .current_dir(root())
            .output();
        let output = output.expect("cargo can be run");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cargo {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).expect("cargo writes text")
    };
    let version = cargo(&["-vV"]);
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("a host");
    let metadata = ["metadata", "--format-version", "1", "--locked", "--offline"];
    let metadata = cargo(&[&metadata[..], &["--filter-platform", host]].concat());
    let metadata: serde_json::Value = serde_json::from_str(&metadata).expect("cargo writes JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let text = |package: &serde_json::Value, key: &str| {
        package[key].as_str().unwrap_or_default().to_owned()
    };
    packages
        .iter()
        .map(|package| (text(package, "name"), text(package, "license")))
        .collect()
}

/// Whether an SPDX expression can be met with accepted licences alone. `AND` binds tighter than `OR`;
/// an older `/` is an `OR`.
fn is_accepted(expression: &str, accepted: &[String]) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let met = either(&mut words, accepted);
    met && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn either(words: &mut Words<'_>, accepted: &[String]) -> bool {
    let mut met = all(words, accepted);
    while words.next_if_eq(&"OR").is_some() {
        met |= all(words, accepted);
    }
    met
}

fn all(words: &mut Words<'_>, accepted: &[String]) -> bool {
    let mut met = one(words, accepted);
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, accepted);
    }
    met
}

fn one(words: &mut Words<'_>, accepted: &[String]) -> bool {
    match words.next() {
        Some("(") => {
            let met = either(words, accepted);
            words.next_if_eq(&")").is_some() && met
        }
        Some(name) => {
            let mut name = name.to_owned();
            if words.next_if_eq(&"WITH").is_some() {
                name = format!("{name} WITH {}", words.next().unwrap_or_default());
            }
            accepted.contains(&name)
        }
        None => false,
    }
}
