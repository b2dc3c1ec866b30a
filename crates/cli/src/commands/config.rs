//! `sapwood config`: the broker's configuration as its layers make it.

use sapwood_model::Code;
use sapwood_server::{Config, ConfigError, Flags, Inputs, Profile, Setting, Value};
use serde_json::json;

use crate::{
    args::server::{BrokerArgs, ConfigCommand},
    console::Console,
    error::{Exit, Failure, Outcome},
    output::{Column, Listing, Row},
};

const COLUMNS: &[Column] = &[
    Column::Text("KEY"),
    Column::Text("VALUE"),
    Column::Text("SOURCE"),
    Column::WideText("DEFAULT"),
    Column::WideText("TAKES"),
    Column::WideText("ABOUT"),
];

/// `sapwood config show`.
pub(crate) fn run(command: ConfigCommand, console: &Console) -> Outcome {
    let ConfigCommand::Show { broker, dev } = command;
    let profile = if dev { Profile::Dev } else { Profile::Serve };
    let config = load(profile, &broker, Flags::default())?;
    let mut listing = Listing::new(COLUMNS);
    for setting in config.settings() {
        listing.push(row(&setting));
    }
    listing.print(console.form()?)?;
    Ok(Exit::Ok)
}

/// The configuration that these flags, the environment and the file make. `more` holds flags that
/// only one of the commands has.
///
/// # Errors
/// All problems of the configuration in one failure.
pub(crate) fn load(profile: Profile, args: &BrokerArgs, more: Flags) -> Result<Config, Failure> {
    let data_dir = args.data_dir.as_ref().map(|path| {
        path.to_str()
            .map(str::to_owned)
            .ok_or_else(|| Failure::usage(format!("--data-dir: {} is not UTF-8", path.display())))
    });
    let flags = Flags {
        data_dir: data_dir.transpose()?,
        listen: args.listen.clone().or(more.listen),
        advertised: args.advertised.clone(),
        http_listen: args.http_listen.clone(),
        insecure: more.insecure,
        set: args.set.clone(),
    };
    let inputs = Inputs {
        file: args.config.clone(),
        flags,
        ..Inputs::new(profile)
    }
    .with_process_environment();
    Config::load(&inputs).map_err(|error| invalid(&error))
}

/// Several problems are one failure, a line each.
pub(crate) fn invalid(error: &ConfigError) -> Failure {
    let message = match error.problems.as_slice() {
        [only] => only.to_string(),
        several => {
            let lines: Vec<String> = several.iter().map(|one| format!("\n    {one}")).collect();
            format!(
                "the configuration has {} problems{}",
                several.len(),
                lines.concat()
            )
        }
    };
    let failure = Failure::new(error.code(), message);
    match error.code() {
        Code::UnknownConfig => failure.cause("The key is misspelt, or belongs to a newer version."),
        _ => failure,
    }
}

fn row(setting: &Setting) -> Row {
    let unit = setting
        .unit
        .map(|unit| format!(" {unit}"))
        .unwrap_or_default();
    let default = setting
        .default
        .as_ref()
        .map(Value::to_string)
        .unwrap_or_default();
    Row {
        name: setting.key.clone(),
        cells: vec![
            setting.key.clone(),
            format!("{}{unit}", setting.value),
            setting.origin.to_string(),
            default,
            setting.bounds.clone(),
            setting.doc.into(),
        ],
        value: json!({
            "key": setting.key,
            "value": plain(&setting.value),
            "unit": setting.unit,
            "source": setting.origin.to_string(),
            "default": setting.default.as_ref().map(plain),
            "takes": setting.bounds,
            "about": setting.doc,
            "reloads": setting.reloads,
        }),
    }
}

fn plain(value: &Value) -> serde_json::Value {
    match value {
        Value::Flag(flag) => json!(flag),
        Value::Number(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::Unset => serde_json::Value::Null,
    }
}
