//! What the machine allows this process: descriptors, mappings, and the boot that it runs in.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sapwood_model::Code;

/// Descriptors for everything that is neither a partition nor a connection: journal, catalog,
/// ballast, lock, listeners, the runtime, and room for what libraries open for a moment.
const DESCRIPTORS_RESERVED: u64 = 128;
/// Below this there is no room to serve anything.
const DESCRIPTORS_MIN: u64 = 256;
/// Descriptors of a partition that is written to: segment, and its next one.
const DESCRIPTORS_PER_PARTITION: u64 = 2;
/// Mappings of a partition that is written to: the active segment, and one that a reader still has.
const MAPPINGS_PER_PARTITION: u64 = 2;
/// Mappings of code, stacks and heaps.
const MAPPINGS_RESERVED: u64 = 2048;
/// What Linux allows when `vm.max_map_count` cannot be read.
const MAPPINGS_DEFAULT: u64 = 65_530;
/// A boot id is 36 bytes; a test's file may hold another short text.
const BOOT_ID_BYTES_MAX: u64 = 128;

/// Why this machine or its settings do not do.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The limit of open files is too low, and raising it was not allowed.
    #[error("the limit of open file descriptors is {have}; at least {need} are needed")]
    TooFewDescriptors {
        /// The hard limit.
        have: u64,
        /// The least that does.
        need: u64,
    },
    /// The file that `storage.boot_id_file` names has no boot id.
    #[error("cannot read the boot id from {}: {reason}", path.display())]
    BootId {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl MachineError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::TooFewDescriptors { .. } => Code::TooFewDescriptors,
            Self::BootId { .. } => Code::InvalidConfig,
        }
    }
}

/// How the process's descriptors and mappings are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// The limit of open files, after it was raised.
    pub(crate) descriptors: u64,
    /// The limit of mappings.
    pub(crate) mappings: u64,
    /// Connections at a time: as configured, or fewer when descriptors are short.
    pub(crate) connections: u64,
    /// Sealed segment files that may be kept open.
    pub(crate) open_files: u64,
    /// Partitions that can be written to at the same time.
    pub(crate) partitions: u64,
}

/// Raises the soft limit of descriptors to the hard one and shares out what there is.
///
/// # Errors
///
/// [`MachineError::TooFewDescriptors`].
pub(crate) fn allowance(connections: u64) -> Result<Allowance, MachineError> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // When it cannot be raised, what there is may still be enough: that is checked next.
    let descriptors = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let mappings = fs::read_to_string("/proc/sys/vm/max_map_count")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(MAPPINGS_DEFAULT);
    share_out(descriptors.unwrap_or(u64::MAX), mappings, connections)
}

fn share_out(descriptors: u64, mappings: u64, connections: u64) -> Result<Allowance, MachineError> {
    if descriptors < DESCRIPTORS_MIN {
        return Err(MachineError::TooFewDescriptors {
            have: descriptors,
            need: DESCRIPTORS_MIN,
        });
    }
    let free = descriptors - DESCRIPTORS_RESERVED;
    let connections = connections.min(free / 2);
    let files = free - connections;
    // A quarter is enough for the files that readers go back to; a checkpoint opens as many.
    let open_files = (files / 4).min(8192);
    let by_descriptors = (files - 2 * open_files) / DESCRIPTORS_PER_PARTITION;
    let by_mappings = mappings.saturating_sub(MAPPINGS_RESERVED) / MAPPINGS_PER_PARTITION;
    Ok(Allowance {
        descriptors,
        mappings,
        connections,
        open_files,
        partitions: by_descriptors.min(by_mappings),
    })
}

/// The boot id in `path`, without white space around it. Blocks on reading the file.
///
/// # Errors
///
/// [`MachineError::BootId`] when the file cannot be read, or is empty, longer than 128 bytes or not
/// text: without a boot id a power cut could not be told from a crash.
pub(crate) fn boot_id(path: &Path) -> Result<String, MachineError> {
    let wrong = |reason: String| MachineError::BootId {
        path: path.to_owned(),
        reason,
    };
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(BOOT_ID_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > BOOT_ID_BYTES_MAX {
        return Err(wrong(format!(
            "it is longer than {BOOT_ID_BYTES_MAX} bytes"
        )));
    }
    match text.trim() {
        "" => Err(wrong("it is empty".to_owned())),
        id => Ok(id.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_and_mappings_bound_the_partitions() {
        let roomy = share_out(1 << 20, 65_530, 10_000).expect("is enough");
        assert_eq!(
            (roomy.connections, roomy.partitions),
            (10_000, (65_530 - 2048) / 2)
        );
        let tight = share_out(4096, 65_530, 1000).expect("is enough");
        assert_eq!(
            (tight.connections, tight.open_files),
            (1000, (4096 - 128 - 1000) / 4)
        );
        let left = 4096 - 128 - 1000 - 2 * tight.open_files;
        assert_eq!(tight.partitions, left / 2);
    }

    #[test]
    fn connections_give_way_when_descriptors_are_short() {
        let allowance = share_out(1024, 65_530, 10_000).expect("is enough");
        assert_eq!(allowance.connections, (1024 - 128) / 2);
        assert!(allowance.partitions > 0);
    }

    #[test]
    fn everything_given_out_fits_into_the_limit() {
        for descriptors in [256, 257, 300, 1024, 65_536, u64::MAX] {
            for connections in [1, 100, 1_000_000] {
                let given = share_out(descriptors, 65_530, connections).expect("is enough");
                let partitions = given.partitions * DESCRIPTORS_PER_PARTITION;
                let files = 2 * given.open_files + partitions;
                let sum = DESCRIPTORS_RESERVED + given.connections + files;
                assert!(sum <= descriptors && given.connections > 0, "{given:?}");
            }
        }
    }

    #[test]
    fn too_few_descriptors_are_an_error_with_both_numbers() {
        let error = share_out(255, 65_530, 1).expect_err("is too little");
        assert_eq!(
            error.to_string(),
            "the limit of open file descriptors is 255; at least 256 are needed"
        );
    }

    #[test]
    fn a_boot_id_is_read_without_its_line_end_and_must_be_there() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("boot_id");
        assert!(boot_id(&path).is_err());
        for (content, id) in [
            ("one\n", Some("one")),
            ("", None),
            (" \n", None),
            (&"x".repeat(129)[..], None),
        ] {
            fs::write(&path, content).expect("writes");
            assert_eq!(boot_id(&path).ok().as_deref(), id, "{content:?}");
        }
        assert!(
            !boot_id(Path::new("/proc/sys/kernel/random/boot_id"))
                .expect("Linux has one")
                .is_empty()
        );
    }
}
