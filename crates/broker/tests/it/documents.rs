//! The page about topic configuration says what the table of keys says.

use std::{fmt::Write as _, fs, path::Path};

use sapwood_broker::{ConfigKey, Effect, ValueKind};

#[test]
fn the_page_about_topic_configuration_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/topic-configuration.md");
    let expected = page();
    if std::env::var_os("SAPWOOD_BLESS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let is_current = fs::read_to_string(&path).is_ok_and(|text| text == expected);
    assert!(
        is_current,
        "docs/topic-configuration.md is stale: SAPWOOD_BLESS=1 cargo test -p sapwood-broker page"
    );
}

/// The whole of docs/topic-configuration.md.
fn page() -> String {
    let mut page = String::from(
        "# Topic configuration\n\n\
         A topic's configuration has Kafka's keys with Kafka's defaults, and one of Sapwood's own,\n\
         `durability`. Set them when a topic is created (`sapwood topic create NAME --set KEY=VALUE`, \
         or any Kafka\nclient), change them later (`sapwood topic alter`, `kafka-configs`), and see all \
         of them with\n`sapwood topic describe NAME --all-configs`. `topic_defaults.KEY` in the \
         broker's configuration gives\nevery topic another default; Kafka's tools see that one under \
         its broker name, such as `log.retention.ms`.\n\n\
         Every value is checked when it is set: one that is out of bounds, or a key that nobody \
         knows, is refused and\nnothing is changed. This page is generated from \
         `crates/broker/src/topic_config/keys.rs`.\n",
    );
    for (effect, title, about) in [
        (
            Effect::Honoured,
            "Honoured",
            "In force as soon as the change is answered.",
        ),
        (
            Effect::Meaningless,
            "Without a meaning on one broker",
            "Checked, kept and shown, because tools set them by habit; they change nothing.",
        ),
    ] {
        let _ = write!(page, "\n## {title}\n\n{about}\n");
        for key in ConfigKey::all().iter().filter(|key| key.effect() == effect) {
            section(&mut page, key);
        }
    }
    page
}

fn section(page: &mut String, key: &ConfigKey) {
    let kind = match key.kind() {
        ValueKind::Boolean => "boolean",
        ValueKind::Int => "32-bit number",
        ValueKind::Long => "64-bit number",
        ValueKind::Double => "number",
        ValueKind::Text => "text",
        ValueKind::List => "list",
    };
    let default = match key.default() {
        "" => "empty".to_owned(),
        value => format!("`{value}`"),
    };
    let broker_key = key
        .broker_key()
        .map(|name| format!(" Broker name: `{name}`."))
        .unwrap_or_default();
    let _ = write!(
        page,
        "\n### `{}`\n\n{}\n\nType: {kind}. Default: {default}. Values: {}.{broker_key}\n",
        key.name(),
        key.documentation(),
        key.bounds(),
    );
}
