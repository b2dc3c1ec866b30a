//! The log that the process writes about itself: one subscriber on stderr, its level changeable.
//!
//! Events of the broker's life carry a stable name in the field `event` (`broker.ready`), so that
//! alerts can be written against them; the message is for people.

use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::config::{LogConfig, LogFormat};

/// Changes the level of the installed log.
#[derive(Debug, Clone)]
pub struct LogHandle {
    targets: reload::Handle<Targets, Registry>,
}

impl LogHandle {
    /// Puts new directives in force.
    ///
    /// # Errors
    ///
    /// Says what is wrong with `level`; what was in force stays.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        let targets = parse(level)?;
        self.targets
            .reload(targets)
            .map_err(|error| error.to_string())
    }
}

/// Installs the process's log on stderr, in colour when that is a terminal and `NO_COLOR` is unset.
/// `None` when the process has one already, as an embedder may: that one stays.
///
/// # Errors
///
/// Says what is wrong with `log.level`.
pub fn install(config: &LogConfig) -> Result<Option<LogHandle>, String> {
    let (filter, targets) = reload::Layer::new(parse(&config.level)?);
    let colour = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let registry = tracing_subscriber::registry().with(filter);
    let installed = match config.format {
        LogFormat::Text => registry
            .with(fmt::layer().with_writer(std::io::stderr).with_ansi(colour))
            .try_init(),
        LogFormat::Json => registry
            .with(
                fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_writer(std::io::stderr),
            )
            .try_init(),
    };
    Ok(installed.is_ok().then_some(LogHandle { targets }))
}

/// Says what is wrong with `level`, if anything is.
pub(crate) fn check_level(level: &str) -> Result<(), String> {
    parse(level).map(drop)
}

/// Reads `info` or `info,sapwood_log=debug`. Stricter than the library's own reading, which takes a
/// misspelt level for the name of a module.
fn parse(text: &str) -> Result<Targets, String> {
    let mut targets = Targets::new();
    for directive in text.split(',').map(str::trim) {
        match directive.split_once('=') {
            None => targets = targets.with_default(parse_level(directive)?),
            Some((module, level)) => {
                let module = module.trim();
                let name = |byte: u8| byte.is_ascii_alphanumeric() || b"_:".contains(&byte);
                if module.is_empty() || !module.bytes().all(name) {
                    return Err(format!("{module:?} is not the name of a module"));
                }
                targets = targets.with_target(module, parse_level(level.trim())?);
            }
        }
    }
    Ok(targets)
}

fn parse_level(text: &str) -> Result<LevelFilter, String> {
    let names = ["error", "warn", "info", "debug", "trace", "off"];
    if !names.contains(&text) {
        return Err(format!(
            "{text:?} is not a level: they are {}",
            names.join(", ")
        ));
    }
    LevelFilter::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_checked_strictly() {
        for text in [
            "info",
            "off",
            "warn,sapwood_log=debug",
            "info, sapwood_log::store = trace",
        ] {
            assert_eq!(check_level(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "inof",
            "INFO",
            "3",
            "info,",
            "=info",
            "a b=info",
            "sapwood_log=loud",
        ] {
            assert!(check_level(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_module_may_say_more_than_the_rest() {
        let targets = parse("warn,sapwood_log=debug").expect("is valid");
        assert!(targets.would_enable("sapwood_log::store", &tracing::Level::DEBUG));
        assert!(!targets.would_enable("sapwood_http", &tracing::Level::INFO));
    }
}
