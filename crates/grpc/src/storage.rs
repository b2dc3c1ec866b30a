//! Storage: usage, background work, and retention and compaction at once.

use std::{ops::ControlFlow, pin::Pin, time::Duration};

use futures_util::Stream;
use sapwood_broker::{Broker, Compacted, CompactionProgress, TaskMetrics, TopicMetrics};
use sapwood_model::PartitionId;
use sapwood_rpc::v1::{self, storage_service_server::StorageService};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::error::Failure;

/// Between two answers that say how far a compaction is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

type Answers = Pin<Box<dyn Stream<Item = Result<v1::CompactResponse, Status>> + Send>>;

#[derive(Debug, Clone)]
pub(crate) struct StorageApi {
    pub(crate) broker: Broker,
}

#[tonic::async_trait]
impl StorageService for StorageApi {
    type CompactStream = Answers;

    async fn usage(
        &self,
        _request: Request<v1::UsageRequest>,
    ) -> Result<Response<v1::UsageResponse>, Status> {
        let broker = self.broker.clone();
        // It asks the file system.
        let answer = tokio::task::spawn_blocking(move || usage(&broker)).await;
        answer
            .map(Response::new)
            .map_err(|error| Status::internal(error.to_string()))
    }

    async fn retain(
        &self,
        request: Request<v1::RetainRequest>,
    ) -> Result<Response<v1::RetainResponse>, Status> {
        let request = request.into_inner();
        let (topic, partition) = (request.topic.as_str(), PartitionId(request.partition));
        let about = |failure: Failure| failure.about(topic, partition);
        let retained = self.broker.retain(topic, partition).await;
        let retained = retained.map_err(|error| about(error.into()))?;
        let bounds = self.broker.bounds(topic, partition);
        let bounds = bounds.map_err(|error| about(error.into()))?;
        Ok(Response::new(v1::RetainResponse {
            segments: retained.segments,
            size_bytes: retained.bytes,
            log_start_offset: bounds.log_start.0,
            failed: retained.failed > 0,
        }))
    }

    async fn compact(
        &self,
        request: Request<v1::CompactRequest>,
    ) -> Result<Response<Answers>, Status> {
        let (answers, receiver) = mpsc::channel(1);
        tokio::spawn(compact(self.broker.clone(), request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Compacts, and tells of it until it is over or nobody listens: then the broker is told at its next step.
async fn compact(
    broker: Broker,
    request: v1::CompactRequest,
    answers: mpsc::Sender<Result<v1::CompactResponse, Status>>,
) {
    let (topic, partition) = (request.topic.as_str(), PartitionId(request.partition));
    let (report, progress) = watch::channel(CompactionProgress::default());
    let report = move |now| match report.send(now) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    let compacting = broker.compact(topic, partition, report);
    tokio::pin!(compacting);
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    let done = loop {
        tokio::select! {
            biased;
            done = &mut compacting => break done,
            () = answers.closed() => return,
            _ = ticks.tick() => {
                let now = *progress.borrow();
                if answers.send(Ok(progress_message(now))).await.is_err() {
                    return;
                }
            }
        }
    };
    let last = match done {
        Ok(compacted) => Ok(v1::CompactResponse {
            result: Some(result_message(&compacted)),
            ..progress_message(*progress.borrow())
        }),
        Err(error) => {
            let failure = Failure::new(error.code(), &error);
            Err(failure.about(topic, partition).into())
        }
    };
    // Nobody may be left who wants to know.
    let _ = answers.send(last).await;
}

fn progress_message(progress: CompactionProgress) -> v1::CompactResponse {
    v1::CompactResponse {
        done_bytes: progress.done_bytes,
        total_bytes: progress.total_bytes,
        result: None,
    }
}

fn result_message(compacted: &Compacted) -> v1::CompactResult {
    let stats = &compacted.stats;
    v1::CompactResult {
        removed_records: stats.removed_records,
        segments: stats.replaced_segments,
        bytes_before: stats.bytes_before,
        bytes_after: stats.bytes_after,
        read_bytes: stats.read_bytes,
        written_bytes: stats.written_bytes,
        unreadable_batches: stats.unreadable_batches,
        clean_offset: compacted.cleaned.0,
    }
}

/// Blocks for a system call.
fn usage(broker: &Broker) -> v1::UsageResponse {
    let snapshot = broker.metrics_snapshot();
    let space = broker.disk_space().ok();
    let state = match () {
        () if broker.read_only().is_some() => "read_only",
        () if broker.is_disk_full() => "full",
        () => "ok",
    };
    v1::UsageResponse {
        free_bytes: space.map(|space| space.free_bytes),
        total_bytes: space.map(|space| space.total_bytes),
        ballast_bytes: broker.ballast_bytes(),
        state: state.to_owned(),
        topics: snapshot.topics.iter().map(topic_message).collect(),
        tasks: snapshot.tasks.iter().map(task_message).collect(),
    }
}

fn topic_message(topic: &TopicMetrics) -> v1::TopicUsage {
    let partitions = || topic.partitions.iter();
    v1::TopicUsage {
        name: topic.name.to_string(),
        partitions: u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX),
        segments: partitions().map(|one| one.stats.segments as u64).sum(),
        size_bytes: partitions().map(|one| one.stats.bytes).sum(),
    }
}

fn task_message(task: &TaskMetrics) -> v1::BackgroundTask {
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    v1::BackgroundTask {
        name: task.name.to_owned(),
        about: task.about.to_owned(),
        trigger: task.trigger.map(ToOwned::to_owned),
        interval_ms: task.interval.map(|interval| micros(interval) / 1000),
        bytes_per_second: task.bytes_per_second,
        runs: task.runs,
        failures: task.failures,
        running: task.is_running,
        last_run_ms: task.last_run.map(|at| at.0),
        last_took_us: micros(task.last_took),
        next_run_ms: task.next_run.map(|at| at.0),
        last_error: task.last_error.as_ref().map(|(_, error)| error.clone()),
        last_error_ms: task.last_error.as_ref().map(|(at, _)| at.0),
        progress_done: task.progress.map(|progress| progress.done),
        progress_total: task.progress.map(|progress| progress.total),
    }
}
