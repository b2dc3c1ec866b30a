//! What is stored, the broker's background work, and retention and compaction at once.

use std::{ops::Range, time::Duration};

use sapwood_model::{Code, Offset, PartitionId, Timestamp};
use sapwood_rpc::v1::{self, storage_service_client::StorageServiceClient};

use super::{Admin, convert::empty_answer};
use crate::{Error, connection::ANSWER_BYTES_MAX};

/// What is stored. New fields may come.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StorageUsage {
    /// Free bytes on the file system of the data directory; `None` when it cannot be asked.
    pub free_bytes: Option<u64>,
    /// All bytes of it.
    pub total_bytes: Option<u64>,
    /// Bytes kept for deletes and commits on a full disk; 0 while they are given up.
    pub ballast_bytes: u64,
    /// `ok`, `full` (records are refused for want of space) or `read_only` (until a restart).
    pub state: String,
    /// In the order of their names.
    pub topics: Vec<TopicUsage>,
    /// The background work, in the order of its table.
    pub tasks: Vec<BackgroundTask>,
}

/// What a topic takes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicUsage {
    /// Its name.
    pub name: String,
    /// The number of its partitions.
    pub partitions: u32,
    /// Segments of all of them.
    pub segments: u64,
    /// Bytes of their batches.
    pub size_bytes: u64,
}

/// One row of the broker's background work. Times are by the broker's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackgroundTask {
    /// Its name.
    pub name: String,
    /// What it does, in a few words.
    pub about: String,
    /// What makes it run before its interval is over.
    pub trigger: Option<String>,
    /// At most so long between two runs; `None` where only the trigger counts, or when it is off.
    pub interval: Option<Duration>,
    /// How many bytes a second it reads and writes at most; `None` where that is next to nothing.
    pub bytes_per_second: Option<u64>,
    /// Runs that succeeded.
    pub runs: u64,
    /// Runs that failed.
    pub failures: u64,
    /// A run is under way.
    pub is_running: bool,
    /// When the last run began.
    pub last_run: Option<Timestamp>,
    /// How long it took.
    pub last_took: Duration,
    /// When it runs next, if nothing triggers it before.
    pub next_run: Option<Timestamp>,
    /// The last failure and when it was, also when it went well since.
    pub last_error: Option<(Timestamp, String)>,
    /// Partitions that are done, and of how many, when it has begun something that takes several runs.
    pub progress: Option<(u64, u64)>,
}

/// The segment that retention removes next.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NextRemoval {
    /// Its records.
    pub offsets: Range<Offset>,
    /// Bytes of its batches.
    pub size_bytes: u64,
    /// When it is old enough, by the broker's clock; `None` without a limit, or when its time is not
    /// known yet.
    pub at: Option<Timestamp>,
    /// After how many more bytes the log is too large with it; `None` without a limit.
    pub after_bytes: Option<u64>,
}

/// What retention removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retained {
    /// Segments.
    pub segments: u64,
    /// Bytes of their batches.
    pub size_bytes: u64,
    /// The log start now.
    pub log_start: Offset,
    /// Something failed; the broker's log says what.
    pub failed: bool,
}

/// How far a partition is compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionState {
    /// Everything below was compacted.
    pub clean_offset: Offset,
    /// Bytes of batches below.
    pub clean_bytes: u64,
    /// Bytes of batches from there on that can be compacted: those of full segments.
    pub dirty_bytes: u64,
}

/// How far a compaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionProgress {
    /// Bytes that were read.
    pub done_bytes: u64,
    /// Of so many, 0 before that is known. It may grow.
    pub total_bytes: u64,
}

/// What a compaction has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// Records that are gone.
    pub removed_records: u64,
    /// Segments that were replaced.
    pub segments: u64,
    /// Their bytes.
    pub bytes_before: u64,
    /// Bytes of the segments in their place.
    pub bytes_after: u64,
    /// Bytes of batches that were read.
    pub read_bytes: u64,
    /// Bytes of batches that were written.
    pub written_bytes: u64,
    /// Batches that nobody can decompress; they stay as they are.
    pub unreadable_batches: u64,
    /// Everything below is compacted now.
    pub clean_offset: Offset,
}

impl Admin {
    /// What is stored, and how the background work is going.
    ///
    /// # Errors
    /// What every call may meet.
    pub async fn storage_usage(&self) -> Result<StorageUsage, Error> {
        let call = |channel| async move {
            StorageServiceClient::new(channel)
                .max_decoding_message_size(ANSWER_BYTES_MAX)
                .usage(v1::UsageRequest {})
                .await
        };
        let usage = self.connections.call(true, call).await?.into_inner();
        let topic = |topic: v1::TopicUsage| TopicUsage {
            name: topic.name,
            partitions: topic.partitions,
            segments: topic.segments,
            size_bytes: topic.size_bytes,
        };
        Ok(StorageUsage {
            free_bytes: usage.free_bytes,
            total_bytes: usage.total_bytes,
            ballast_bytes: usage.ballast_bytes,
            state: usage.state,
            topics: usage.topics.into_iter().map(topic).collect(),
            tasks: usage.tasks.into_iter().map(task_from).collect(),
        })
    }

    /// Does for one partition now what retention does in its own time. What it removes is gone for good
    /// when this returns.
    ///
    /// # Errors
    /// [`Code::UnknownTopic`], [`Code::UnknownPartition`], or what every call may meet.
    pub async fn retain(&self, topic: &str, partition: PartitionId) -> Result<Retained, Error> {
        let call = |channel| async move {
            let request = v1::RetainRequest {
                topic: topic.to_owned(),
                partition: partition.0,
            };
            StorageServiceClient::new(channel).retain(request).await
        };
        let retained = self.connections.call(false, call).await?.into_inner();
        Ok(Retained {
            segments: retained.segments,
            size_bytes: retained.size_bytes,
            log_start: Offset(retained.log_start_offset),
            failed: retained.failed,
        })
    }

    /// Compacts one partition of a compacted topic now, whatever part of it is new, and without a throttle.
    /// `on_progress` is told several times a second how far it is. The request timeout is for each of these
    /// answers. Dropping the future ends the compaction; what was compacted so far stays.
    ///
    /// # Errors
    /// [`Code::UnknownTopic`], [`Code::UnknownPartition`], [`Code::InvalidTopicConfig`] if the topic is not
    /// compacted, or what every call may meet.
    pub async fn compact(
        &self,
        topic: &str,
        partition: PartitionId,
        mut on_progress: impl FnMut(CompactionProgress),
    ) -> Result<Compacted, Error> {
        let call = |channel| async move {
            let request = v1::CompactRequest {
                topic: topic.to_owned(),
                partition: partition.0,
            };
            StorageServiceClient::new(channel).compact(request).await
        };
        let mut answers = self.connections.call(false, call).await?.into_inner();
        let timeout = self.connections.request_timeout;
        loop {
            let answer = tokio::time::timeout(timeout, answers.message()).await;
            let answer = answer.map_err(|_| {
                let seconds = timeout.as_secs_f64();
                let message = format!("the broker did not say anything for {seconds} s");
                Error::local(Code::TimedOut, message)
            })?;
            let answer = answer?.ok_or_else(empty_answer)?;
            if let Some(result) = answer.result {
                return Ok(compacted_from(&result));
            }
            on_progress(CompactionProgress {
                done_bytes: answer.done_bytes,
                total_bytes: answer.total_bytes,
            });
        }
    }
}

fn compacted_from(result: &v1::CompactResult) -> Compacted {
    Compacted {
        removed_records: result.removed_records,
        segments: result.segments,
        bytes_before: result.bytes_before,
        bytes_after: result.bytes_after,
        read_bytes: result.read_bytes,
        written_bytes: result.written_bytes,
        unreadable_batches: result.unreadable_batches,
        clean_offset: Offset(result.clean_offset),
    }
}

fn task_from(task: v1::BackgroundTask) -> BackgroundTask {
    BackgroundTask {
        name: task.name,
        about: task.about,
        trigger: task.trigger,
        interval: task.interval_ms.map(Duration::from_millis),
        bytes_per_second: task.bytes_per_second,
        runs: task.runs,
        failures: task.failures,
        is_running: task.running,
        last_run: task.last_run_ms.map(Timestamp),
        last_took: Duration::from_micros(task.last_took_us),
        next_run: task.next_run_ms.map(Timestamp),
        last_error: task.last_error_ms.map(Timestamp).zip(task.last_error),
        progress: task.progress_done.zip(task.progress_total),
    }
}

pub(super) fn compaction_from(state: v1::CompactionState) -> CompactionState {
    CompactionState {
        clean_offset: Offset(state.clean_offset),
        clean_bytes: state.clean_bytes,
        dirty_bytes: state.dirty_bytes,
    }
}

pub(super) fn next_removal_from(next: v1::NextRemoval) -> NextRemoval {
    NextRemoval {
        offsets: Offset(next.start_offset)..Offset(next.end_offset),
        size_bytes: next.size_bytes,
        at: next.at_ms.map(Timestamp),
        after_bytes: next.after_bytes,
    }
}
