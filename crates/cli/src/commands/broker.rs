//! `sapwood dev` and `sapwood serve`: configuration in, a running broker out.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use sapwood_log::{DataDir, io::Environment};
use sapwood_model::{Code, Durability};
use sapwood_server::{Config, Flags, Profile, Ready, RunError};
use serde_json::json;

use super::config;
use crate::{
    args::{
        Global,
        server::{BrokerArgs, DevArgs, ServeArgs},
    },
    console::Console,
    error::{Exit, Failure, Outcome, io_failed},
    output::{bytes_text, print_text},
};

/// What clients use when they are not told otherwise; with another address, examples name it.
const DEFAULT_LISTEN: &str = "127.0.0.1:9092";

/// `sapwood dev`.
pub(crate) fn dev(args: DevArgs, global: &Global, console: &Console) -> Outcome {
    let more = Flags {
        listen: args.port.map(|port| format!("127.0.0.1:{port}")),
        ..Flags::default()
    };
    let config = config::load(Profile::Dev, &with_verbosity(args.broker, global), more)?;
    if args.clean {
        wipe(&config.storage.data_dir, console)?;
    }
    run(config, console)
}

/// `sapwood serve`.
pub(crate) fn serve(args: ServeArgs, global: &Global, console: &Console) -> Outcome {
    let more = Flags {
        insecure: args.insecure,
        ..Flags::default()
    };
    let config = config::load(Profile::Serve, &with_verbosity(args.broker, global), more)?;
    if args.check_config {
        console.say("the configuration is valid");
        return Ok(Exit::Ok);
    }
    run(config, console)
}

/// `-v` is a level of the log, weaker than one that is set by name.
fn with_verbosity(mut args: BrokerArgs, global: &Global) -> BrokerArgs {
    let level = match global.verbose {
        0 => return args,
        1 => "info",
        _ => "debug",
    };
    args.set.insert(0, format!("log.level={level}"));
    args
}

fn run(config: Config, console: &Console) -> Outcome {
    let form = console.form()?;
    let profile = config.profile;
    let printed = |ready: &Ready| {
        let text = if form.is_json() {
            ready_json(ready)
        } else {
            ready_text(ready, profile)
        };
        // A broker serves on when nobody reads its standard output.
        let _: Outcome<()> = print_text(&text);
    };
    sapwood_server::run(config, printed).map_err(|error| failed(&error))?;
    Ok(Exit::Ok)
}

fn failed(error: &RunError) -> Failure {
    let failure = Failure::new(error.code(), error);
    match error {
        RunError::Interrupted { .. } => failure
            .cause("Two signals came; the second one ends the process without waiting for clients.")
            .hint("Nothing that was acknowledged is lost: start it again.")
            .exit(Exit::Failed),
        _ => failure,
    }
}

/// The line for scripts.
fn ready_json(ready: &Ready) -> String {
    let data_dir = std::path::absolute(&ready.data_dir).unwrap_or_else(|_| ready.data_dir.clone());
    let line = json!({
        "listen": ready.listen().to_string(),
        "http": ready.http.map(|http| http.to_string()),
        "data_dir": data_dir,
        "pid": ready.pid,
    });
    format!("{line}\n")
}

/// The lines for people.
fn ready_text(ready: &Ready, profile: Profile) -> String {
    use owo_colors::OwoColorize;
    let tick = "✓".green().to_string();
    let listen = ready.listen();
    let metrics = match ready.http {
        Some(http) => format!("   {tick} metrics http://{http}"),
        None => String::new(),
    };
    let durability = match ready.durability {
        Durability::Fsync => "fsync",
        Durability::Os => "os",
    };
    let data_dir = shown(&ready.data_dir);
    let (kept, hint) = match profile {
        Profile::Dev => (" (kept; --clean wipes it)", examples(listen)),
        Profile::Serve => ("", String::new()),
    };
    let loopback = ready
        .listeners
        .iter()
        .all(|(_, address)| address.ip().is_loopback());
    let auth = if loopback {
        "off (loopback only)"
    } else {
        "off (open to the network)"
    };
    format!(
        "{tick} kafka and grpc {listen}{metrics}\n\
         {tick} data {data_dir}{kept}   durability {durability}   auth {auth}\n{hint}"
    )
}

fn examples(listen: SocketAddr) -> String {
    let brokers = match listen.to_string() {
        address if address == DEFAULT_LISTEN => String::new(),
        address => format!(" -b {address}"),
    };
    format!(
        "Try:  echo '{{\"id\":1}}' | sapwood topic produce demo{brokers}        \
         sapwood topic consume demo -o jsonl{brokers}\n"
    )
}

/// A relative path as one that can be seen to be a path.
fn shown(path: &Path) -> String {
    match path.is_relative() && !path.starts_with(".") && !path.starts_with("..") {
        true => format!("./{}", path.display()),
        false => path.display().to_string(),
    }
}

/// Removes what is in a data directory, after asking. Only in a directory that is ours and that
/// nobody uses; its lock is held meanwhile.
fn wipe(path: &Path, console: &Console) -> Outcome<()> {
    if !path.exists() {
        return Ok(());
    }
    let held = DataDir::open(Environment::real(), path)
        .map_err(|error| Failure::new(error.code(), &error))?;
    let contents = contents(path)?;
    let bytes: u64 = contents.iter().map(|path| size_bytes(path)).sum();
    console.say(&format!(
        "--clean deletes everything in {}: {}",
        shown(path),
        bytes_text(bytes)
    ));
    console.confirm("Delete it for good?")?;
    for path in &contents {
        let removed = if path.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
        removed.map_err(|error| wipe_failed(&error, path))?;
    }
    drop(held);
    Ok(())
}

/// The entries of a data directory, the lock aside: whoever waits for it must find the same file.
fn contents(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(path).map_err(|error| wipe_failed(&error, path))?;
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| wipe_failed(&error, path))?;
        if entry.file_name() != sapwood_log::LOCK_FILE {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

fn wipe_failed(error: &io::Error, path: &Path) -> Failure {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::new(
            Code::NoPermission,
            format!("cannot remove {}: {error}", path.display()),
        ),
        _ => io_failed(error, format!("cannot remove {}", path.display())),
    }
}

/// Bytes of a file or of everything in a folder; what cannot be looked at counts nothing.
fn size_bytes(path: &Path) -> u64 {
    let Ok(metadata) = path.symlink_metadata() else {
        return 0;
    };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size_bytes(&entry.path())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(listen: &str) -> Ready {
        Ready {
            listeners: vec![("main".into(), listen.parse().unwrap())],
            http: Some("127.0.0.1:9644".parse().unwrap()),
            data_dir: "sapwood-data".into(),
            durability: Durability::Fsync,
            pid: 7,
            took: std::time::Duration::ZERO,
        }
    }

    #[test]
    fn a_script_gets_one_line_of_json() {
        let line = ready_json(&ready("127.0.0.1:9092"));
        assert_eq!(line.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["listen"], "127.0.0.1:9092");
        assert_eq!(value["http"], "127.0.0.1:9644");
        assert_eq!(value["pid"], 7);
        assert!(
            value["data_dir"]
                .as_str()
                .is_some_and(|path| path.starts_with('/'))
        );
    }

    #[test]
    fn people_see_what_to_type_next_with_the_address_where_it_is_needed() {
        let text = |listen| {
            let text = ready_text(&ready(listen), Profile::Dev);
            anstream::adapter::strip_str(&text).to_string()
        };
        assert_eq!(
            text("127.0.0.1:9092"),
            "✓ kafka and grpc 127.0.0.1:9092   ✓ metrics http://127.0.0.1:9644\n\
             ✓ data ./sapwood-data (kept; --clean wipes it)   durability fsync   \
             auth off (loopback only)\n\
             Try:  echo '{\"id\":1}' | sapwood topic produce demo        \
             sapwood topic consume demo -o jsonl\n"
        );
        assert!(text("127.0.0.1:5000").contains("topic produce demo -b 127.0.0.1:5000"));
        assert!(text("0.0.0.0:9092").contains("auth off (open to the network)"));
    }
}
