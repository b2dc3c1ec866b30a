//! One configuration value, and how it is read from text.

use std::fmt;

/// A value of the configuration. `Display` writes TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `true` or `false`.
    Flag(bool),
    /// A whole number in the key's unit.
    Number(u64),
    /// Text.
    Text(String),
    /// Nothing is set.
    Unset,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Unset => f.write_str("\"\""),
        }
    }
}

/// `text` as a TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            other if other.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(other))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// Reads `67108864`, `67_108_864`, `64 MiB`, `64MiB`, `64M` or `64mb`: always powers of 1024.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    parse_number(number)?.checked_mul(1 << shift)
}

/// Reads milliseconds: `250`, `250ms`, `10s`, `5m`, `2h`.
pub(super) fn parse_millis(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text);
    let factor = match unit {
        "" | "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    parse_number(number)?.checked_mul(factor)
}

/// Reads a whole number with `_` between digits allowed, as TOML does.
pub(super) fn parse_number(text: &str) -> Option<u64> {
    let text = text.trim();
    if text.starts_with(['_', '+']) || text.ends_with('_') {
        return None;
    }
    text.replace('_', "").parse().ok()
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|character: char| !character.is_ascii_digit() && character != '_')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim())
}

/// Checks `HOST:PORT`: a name or an IPv4 address, or an IPv6 address in brackets. Says what is
/// wrong with it.
pub(super) fn check_address(text: &str) -> Result<(), String> {
    if text.parse::<std::net::SocketAddr>().is_ok() {
        return Ok(());
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("it has no port: write HOST:PORT, such as 127.0.0.1:9092".to_owned());
    };
    if port.parse::<u16>().is_err() {
        return Err(format!("{port:?} is not a port: ports are 0 to 65535"));
    }
    if host.is_empty() {
        return Err(format!(
            "it has no host: write 0.0.0.0:{port} for every address"
        ));
    }
    if host.contains(':') || host.starts_with('[') {
        return Err(format!("an IPv6 address stands in brackets: [::1]:{port}"));
    }
    if !is_host_name(host) {
        return Err(format!("{host:?} is neither an address nor a host name"));
    }
    Ok(())
}

/// Checks `HOST:PORT` as clients are told it: something that they can connect to.
pub(super) fn check_advertised(text: &str) -> Result<(), String> {
    check_address(text)?;
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    if port.parse() == Ok(0_u16) {
        return Err("clients cannot connect to port 0".to_owned());
    }
    let address = host.trim_start_matches('[').trim_end_matches(']');
    if address
        .parse()
        .is_ok_and(|ip: std::net::IpAddr| ip.is_unspecified())
    {
        return Err(format!(
            "clients cannot connect to {host}: name this machine as they know it, or leave it out \
             and they are told the address that they connected to"
        ));
    }
    Ok(())
}

/// A host name: labels of 1 to 63 letters, digits, `-` and `_`, with dots between them, at most 253
/// bytes. One whose last label is a number is an IPv4 address, and here a wrong one.
fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= 253
        && host.split('.').all(is_label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_with_and_without_a_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("67_108_864", 64 << 20),
            ("64 MiB", 64 << 20),
            ("64m", 64 << 20),
            ("1G", 1 << 30),
        ] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "MiB",
            "-1",
            "1.5 MiB",
            "64 pints",
            "99999999999999999999",
            "20000000 TiB",
            "_1",
        ] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_read_with_and_without_a_unit() {
        for (text, millis) in [
            ("250", 250),
            ("250 ms", 250),
            ("10s", 10_000),
            ("2h", 7_200_000),
        ] {
            assert_eq!(parse_millis(text), Some(millis), "{text}");
        }
        for text in ["", "s", "-1s", "1d", "1.5s"] {
            assert_eq!(parse_millis(text), None, "{text}");
        }
    }

    #[test]
    fn addresses_need_a_host_and_a_port() {
        for text in [
            "127.0.0.1:9092",
            "[::1]:0",
            "localhost:9092",
            "broker-1.example.org:1",
            "0.0.0.0:80",
        ] {
            assert_eq!(check_address(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "localhost",
            ":9092",
            "localhost:",
            "localhost:99999",
            "::1:9092",
            "a b:1",
            "[::1:2",
            "256.0.0.1:9092",
            "10.0.0:9092",
            "-a:1",
            "a..b:1",
        ] {
            assert!(check_address(text).is_err(), "{text}");
        }
        assert!(check_address(&format!("{}:1", "a".repeat(64))).is_err());
        assert!(check_address(&format!("{}:1", "a.".repeat(128))).is_err());
    }

    #[test]
    fn clients_are_told_only_what_they_can_connect_to() {
        for text in [
            "kafka.example.org:9092",
            "10.0.0.7:1",
            "[2001:db8::7]:9092",
            "broker_1:1",
        ] {
            assert_eq!(check_advertised(text), Ok(()), "{text}");
        }
        for text in [
            "0.0.0.0:9092",
            "[::]:9092",
            "[::0:0]:9092",
            "localhost:0",
            "localhost:00",
            "[::1]:0",
            "localhost",
            "a b:9092",
        ] {
            assert!(check_advertised(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_value_prints_as_toml_that_reads_back() {
        let text = "a \"quoted\" \\ line\nand\u{1} more";
        let document = format!("key = {}", Value::Text(text.to_owned()));
        let table: toml::Table = document.parse().expect("is TOML");
        assert_eq!(table["key"].as_str(), Some(text));
    }
}
