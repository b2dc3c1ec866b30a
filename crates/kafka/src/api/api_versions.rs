//! ApiVersions: what this broker serves, from the dispatch table.

use sapwood_kafka_wire::messages::{
    ApiVersionsRequest, ApiVersionsResponse, ApiVersionsResponseApiVersion,
};

use crate::{
    context::Context,
    dispatch::{APIS, Api},
    errors::ErrorCode,
};

/// The first version in which clients say what they are.
const NAMES_SOFTWARE_FROM: i16 = 3;

pub(crate) async fn handle(
    context: &Context,
    request: ApiVersionsRequest,
    version: i16,
) -> ApiVersionsResponse {
    let (name, software_version) = (
        request.client_software_name,
        request.client_software_version,
    );
    if version >= NAMES_SOFTWARE_FROM {
        if !is_software_name(&name) || !is_software_name(&software_version) {
            let reason = "the client's software name or version has characters that it must not";
            return ApiVersionsResponse {
                error_code: context.refuse(ErrorCode::InvalidRequest, &reason),
                ..ApiVersionsResponse::default()
            };
        }
        context.connection().set_software(&name, &software_version);
    }
    ApiVersionsResponse {
        api_keys: APIS.iter().map(row).collect(),
        ..ApiVersionsResponse::default()
    }
}

/// The answer to a version that is not served, to be written as version 0: clients ask again in a
/// version of the one row.
pub(crate) fn unknown_version(context: &Context, version: i16) -> ApiVersionsResponse {
    let reason = format_args!("version {version} of ApiVersions is not served");
    ApiVersionsResponse {
        error_code: context.refuse(ErrorCode::UnsupportedVersion, &reason),
        api_keys: vec![row(context.api())],
        ..ApiVersionsResponse::default()
    }
}

fn row(api: &Api) -> ApiVersionsResponseApiVersion {
    ApiVersionsResponseApiVersion {
        api_key: api.key,
        min_version: *api.versions.start(),
        max_version: *api.versions.end(),
    }
}

/// Kafka's rule: letters and digits, and between them also `-` and `.`.
fn is_software_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_are_letters_and_digits_with_dots_and_dashes_inside() {
        for good in ["a", "librdkafka", "apache-kafka-java", "2.16.0", "a..b"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", ".a", "a.", "a b", "a_b", "ü", "a\n"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }
}
