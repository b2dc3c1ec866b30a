//! What can be wrong with a configuration.

use std::fmt;
use std::path::PathBuf;

use sapwood_model::Code;

use super::Origin;

/// A configuration that is not taken: everything that is wrong with it, at least one problem.
///
/// `Display` writes one problem a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The problems: of the file from top to bottom, then the environment, then the flags, then
    /// what is wrong with the whole.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// The first problem's code.
    pub fn code(&self) -> Code {
        self.problems
            .first()
            .map_or(Code::InvalidConfig, Problem::code)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {reason}", path.display())]
    Unreadable {
        /// The path as it was given.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// The file is not TOML.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Syntax {
        /// The path as it was given.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The character in the line, counted from 1.
        column: usize,
        /// What the parser expected.
        message: String,
    },
    /// No key has this name.
    #[error("{origin}: unknown key {key:?}{}", did_you_mean(suggestion.as_deref()))]
    UnknownKey {
        /// The key as it was written; an environment variable's in its dotted form.
        key: String,
        /// Where it stands.
        origin: Origin,
        /// The key that was probably meant.
        suggestion: Option<String>,
    },
    /// The value is of the wrong type or outside its bounds.
    #[error("{origin}: {key} = {value}: {reason}")]
    InvalidValue {
        /// The key.
        key: String,
        /// The value as it was written.
        value: String,
        /// Where it stands.
        origin: Origin,
        /// What is wrong with it, with the bounds.
        reason: String,
    },
    /// A flag that is not of its form: `--set` without `=`, `--listen` with several listeners.
    #[error("{flag}: {reason}")]
    InvalidFlag {
        /// The flag as it was given.
        flag: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `serve` would listen beyond loopback while authentication is off.
    #[error(
        "{origin}: {key} = {address:?} listens beyond loopback while authentication is off; \
         pass --insecure if the network is trusted"
    )]
    InsecureListen {
        /// The key of the address.
        key: String,
        /// The address.
        address: String,
        /// Where it stands.
        origin: Origin,
    },
}

impl Problem {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Unreadable { .. } | Self::Syntax { .. } | Self::InvalidValue { .. } => {
                Code::InvalidConfig
            }
            Self::UnknownKey { .. } => Code::UnknownConfig,
            Self::InvalidFlag { .. } => Code::InvalidArgument,
            Self::InsecureListen { .. } => Code::InsecureListen,
        }
    }
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |key| format!("; did you mean {key:?}?"))
}
