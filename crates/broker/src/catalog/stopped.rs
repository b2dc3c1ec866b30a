//! What the catalog of a stopped broker says, without changing anything.

use std::{io, path::Path};

use sapwood_log::{
    Known, LogConfig, PartitionSpec,
    io::{Environment, OpenMode},
};
use sapwood_model::{DirectoryId, PartitionId};

use super::{
    CatalogOpenError, FILE, FOLDER,
    frame::{self, FrameError},
};

/// The partitions that the catalog of a data directory knows: their topics, ids and log starts. Their
/// configuration is the default: what a broker was started with is not in the catalog. Reads only, also
/// where a broker would cut an unfinished record off. Blocks.
///
/// # Errors
/// [`CatalogOpenError`] when the file is missing, damaged, of a newer version or of another directory.
pub fn read_stopped_catalog(
    environment: &Environment,
    data_dir: &Path,
    directory: DirectoryId,
) -> Result<Known, CatalogOpenError> {
    let path = data_dir.join(FOLDER).join(FILE);
    let read = || {
        let file = environment.disk.open(&path, OpenMode::Read)?;
        let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        Ok::<_, io::Error>(bytes)
    };
    let bytes = match read() {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let evidence = "an identity".into();
            return Err(CatalogOpenError::Missing { path, evidence });
        }
        Err(error) => return Err(CatalogOpenError::io(&path)(error)),
    };
    let contents = match frame::read(&bytes, directory) {
        Ok(contents) => contents,
        Err(FrameError::Newer { found }) => return Err(CatalogOpenError::Newer { path, found }),
        Err(error) => {
            let what = error.to_string();
            return Err(CatalogOpenError::Damaged { path, what });
        }
    };
    let state = contents.state;
    let mut partitions = Vec::new();
    for topic in state.topics() {
        for partition in (0..topic.record.partitions).map(PartitionId) {
            partitions.push(PartitionSpec {
                topic: topic.record.name.clone(),
                topic_id: topic.record.id,
                partition,
                log_start: topic.log_start(partition),
                config: LogConfig::default(),
            });
        }
    }
    Ok(Known {
        partitions,
        deleted: state.deleted().keys().copied().collect(),
    })
}
