//! The routes over real sockets: every state of a process, and metrics that parse.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sapwood_broker::{
    Broker, BrokerOptions, Histogram, NewTopic, Produce, Progress, SeekPartitions, SeekPosition,
    SeekTarget, StoreOptions,
};
use sapwood_http::{
    ApiRequests, ConnectionCounters, ConnectionEnd, Health, Http, Metrics, ProtocolRequests,
    Readiness, RecoveryProgress,
};
use sapwood_model::{Acks, Offset, PartitionId, Timestamp, TopicName, TopicPartition};
use sapwood_record::{BatchBuilder, Codec, RecordInput};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

struct Served {
    address: SocketAddr,
    health: Arc<Health>,
    counters: Arc<ConnectionCounters>,
    metrics: Arc<Metrics>,
    done: Arc<AtomicU64>,
    stop: watch::Sender<bool>,
}

/// The requests of a protocol that there is not.
#[derive(Debug, Default)]
struct Letters {
    sent: Histogram,
    returned: Histogram,
}

impl ProtocolRequests for Letters {
    fn protocol(&self) -> &'static str {
        "post"
    }

    fn apis(&self) -> Vec<ApiRequests<'_>> {
        self.sent.record(Duration::from_millis(1));
        let send = ApiRequests {
            name: "Send",
            outcomes: vec![("NONE", 3), ("LOST", 2)],
            duration: &self.sent,
        };
        let back = ApiRequests {
            name: "Return",
            outcomes: vec![("NONE", 0)],
            duration: &self.returned,
        };
        vec![send, back]
    }

    fn faults(&self) -> u64 {
        4
    }
}

impl Served {
    async fn new(per_partition: bool) -> Self {
        let done = Arc::new(AtomicU64::new(0));
        let health = Health::recovering({
            let done = Arc::clone(&done);
            move || RecoveryProgress {
                partitions_done: done.load(Ordering::Relaxed),
                partitions_total: 1000,
                bytes_done: 4096,
            }
        });
        let counters = Arc::new(ConnectionCounters::default());
        let metrics = Metrics::new(Arc::clone(&health), Arc::clone(&counters), per_partition);
        let http = Http::new(Arc::clone(&health), Arc::clone(&metrics));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("is bound");
        let stop = watch::Sender::new(false);
        let stopped = stop.subscribe();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (http, stopped) = (http.clone(), stopped.clone());
                tokio::spawn(async move { http.serve_connection(stream, stopped).await });
            }
        });
        Self {
            address,
            health,
            counters,
            metrics,
            done,
            stop,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connects")
    }

    /// Status, head and body of a GET on a connection of its own.
    async fn get(&self, path: &str) -> (u16, String, String) {
        let mut stream = self.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        let (head, body) = answer.split_once("\r\n\r\n").expect("has a head");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        (
            status.expect("has a status"),
            head.to_ascii_lowercase(),
            body.to_owned(),
        )
    }
}

async fn broker(folder: &tempfile::TempDir) -> Broker {
    let store = StoreOptions {
        ballast_bytes: 0,
        journal_file_bytes: 4 << 20,
        journal_files: 2,
        boot_id: "boot".to_owned(),
        ..StoreOptions::default()
    };
    let options = BrokerOptions::new(folder.path().join("data"), store);
    Broker::open(options, Arc::new(Progress::default()))
        .await
        .expect("opens")
}

async fn create(broker: &Broker, name: &str, partitions: u32) {
    let topic = NewTopic {
        name: name.to_owned(),
        partitions: Some(partitions),
        replication_factor: None,
        configs: Vec::new(),
        validate_only: false,
    };
    broker.create_topic(topic).await.expect("creates");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_goes_from_progress_to_ready_to_draining_while_liveness_stays() {
    let served = Served::new(true).await;
    let (status, head, body) = served.get("/readyz").await;
    assert_eq!(status, 503);
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(
        body.starts_with(
            r#"{"status":"recovering","partitions_done":0,"partitions_total":1000,"bytes_done":4096,"#
        ),
        "{body}"
    );
    served.done.store(617, Ordering::Relaxed);
    let (_, _, body) = served.get("/readyz").await;
    assert!(body.contains(r#""partitions_done":617,"#), "{body}");
    assert_eq!(served.get("/livez").await.0, 200);
    assert_eq!(served.get("/metrics").await.0, 200);
    assert_eq!(served.health.start_took(), None);

    let folder = tempfile::tempdir().expect("a temporary folder");
    let broker = broker(&folder).await;
    served.health.ready(broker.clone());
    let (status, _, body) = served.get("/readyz").await;
    assert_eq!((status, body.as_str()), (200, r#"{"status":"ready"}"#));
    assert!(served.health.start_took().is_some());

    served.health.drain();
    let (status, _, body) = served.get("/readyz").await;
    assert_eq!((status, body.as_str()), (503, r#"{"status":"draining"}"#));
    assert_eq!(served.health.readiness(), Readiness::Draining);
    assert_eq!(served.get("/livez").await.0, 200);
    broker.drain_and_close().await.expect("closes");
    assert_eq!(served.get("/metrics").await.0, 200);
}

/// On one thread: what loads the groups has not run yet when the broker is there.
#[tokio::test]
async fn readiness_waits_for_the_groups_with_progress() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = broker(&folder).await;
    first.groups().prepare().await.expect("makes the topic");
    first.drain_and_close().await.expect("closes");
    drop(first);

    let broker = broker(&folder).await;
    let served = Served::new(true).await;
    served.health.ready(broker.clone());
    let readiness = served.health.readiness();
    let Readiness::Loading { progress, .. } = readiness else {
        panic!("{readiness:?}");
    };
    assert_eq!(
        (progress.partitions_done, progress.partitions_total),
        (0, 16)
    );
    let json = serde_json::to_string(&readiness).expect("is JSON");
    let expected = r#"{"status":"loading","partitions_done":0,"partitions_total":16,"#;
    assert!(json.starts_with(expected), "{json}");
    loop {
        let (status, _, body) = served.get("/readyz").await;
        if status == 200 {
            assert_eq!(body, r#"{"status":"ready"}"#);
            break;
        }
        assert!(body.contains(r#""status":"loading""#), "{body}");
    }
    broker.drain_and_close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_paths_and_methods_are_refused() {
    let served = Served::new(true).await;
    assert_eq!(served.get("/").await.0, 200);
    let (status, _, body) = served.get("/console").await;
    assert_eq!(status, 404);
    assert!(body.contains("/metrics"), "{body}");
    let mut stream = served.connect().await;
    let request =
        "POST /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("reads");
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_end_is_refused_before_it_grows() {
    let served = Served::new(true).await;
    let mut stream = served.connect().await;
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nx: ")
        .await
        .expect("writes");
    let mut written = 0;
    while written < 8 << 20 && stream.write_all(&[b'a'; 4096]).await.is_ok() {
        written += 4096;
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(
        written < 8 << 20,
        "the server took {written} bytes of one header"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_idle_connections() {
    let served = Served::new(true).await;
    let mut stream = served.connect().await;
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("writes");
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.expect("reads");
    assert_eq!(&first, b"HTTP/1.1 200");
    served.stop.send_replace(true);
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest));
    end.await
        .expect("is closed soon")
        .expect("is closed in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_parse_and_hold_what_happened() {
    let served = Served::new(true).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let broker = broker(&folder).await;
    create(&broker, "orders", 3).await;
    create(&broker, "payments.eu", 1).await;
    served.health.ready(broker.clone());
    served.counters.opened();
    served.counters.opened();
    served.counters.grpc_opened();
    served.counters.opened();
    served.counters.kafka_opened();
    served.counters.turned_away(ConnectionEnd::Tls);
    served.metrics.show_requests(Arc::new(Letters::default()));

    let (_, head, text) = served.get("/metrics").await;
    assert!(
        head.contains("content-type: application/openmetrics-text"),
        "{head}"
    );
    let metrics = parse(&text);
    let value = |series: &str| {
        *metrics
            .get(series)
            .unwrap_or_else(|| panic!("no {series}\n{text}"))
    };
    assert_eq!(value(r#"sapwood_state{state="ready"}"#), 1.0);
    assert_eq!(value(r#"sapwood_connections{protocol="grpc"}"#), 1.0);
    assert_eq!(value(r#"sapwood_connections{protocol="kafka"}"#), 1.0);
    assert_eq!(value(r#"sapwood_connections{protocol="other"}"#), 1.0);
    let requests = |api: &str, error: &str| {
        value(&format!(
            "sapwood_post_requests_total{{api=\"{api}\",error=\"{error}\"}}"
        ))
    };
    assert_eq!(requests("Send", "NONE"), 3.0);
    assert_eq!(requests("Send", "LOST"), 2.0);
    assert_eq!(value("sapwood_post_faults_total{}"), 4.0);
    assert_eq!(
        value(r#"sapwood_post_request_duration_seconds_count{api="Send"}"#),
        1.0
    );
    assert!(!text.contains("_duration_seconds_count{api=\"Return\"}"));
    assert_eq!(
        value(r#"sapwood_connections_refused_total{reason="tls"}"#),
        1.0
    );
    assert_eq!(value(r#"sapwood_topic_partitions{topic="orders"}"#), 3.0);
    assert_eq!(
        value(r#"sapwood_log_end_offset{topic="orders",partition="2"}"#),
        0.0
    );
    assert_eq!(
        value(r#"sapwood_topic_records_in_total{topic="payments.eu"}"#),
        0.0
    );
    assert_eq!(
        value(r#"sapwood_requests_total{api="produce",error="none"}"#),
        0.0
    );
    assert_eq!(value(r#"sapwood_disk_state{state="ok"}"#), 1.0);
    assert!(value("sapwood_disk_total_bytes") >= value("sapwood_disk_free_bytes"));
    assert!(value("sapwood_recovery_seconds") > 0.0);
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(
        metrics
            .keys()
            .any(|series| series.starts_with("sapwood_build_info{version="))
    );
    assert!(metrics.contains_key(r#"sapwood_fsync_duration_seconds_bucket{le="+Inf"}"#));
    for series in [
        "sapwood_compaction_runs_total{}",
        "sapwood_compaction_failures_total{}",
        "sapwood_compaction_read_bytes_total{}",
        "sapwood_compaction_written_bytes_total{}",
        "sapwood_compaction_removed_records_total{}",
        "sapwood_compaction_replaced_segments_total{}",
        "sapwood_compaction_replaced_bytes_total{}",
        "sapwood_compaction_replacing_bytes_total{}",
        "sapwood_compaction_unreadable_batches_total{}",
        "sapwood_compaction_dirty_max_ratio",
        "sapwood_compaction_uncleanable_partitions",
        "sapwood_compaction_map_max_bytes",
    ] {
        assert_eq!(value(series), 0.0, "{series}");
    }
    broker.drain_and_close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_series_for_partitions_a_topic_shows_their_sum() {
    let served = Served::new(false).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let broker = broker(&folder).await;
    create(&broker, "orders", 50).await;
    served.health.ready(broker.clone());
    let (_, _, text) = served.get("/metrics").await;
    let metrics = parse(&text);
    assert!(
        metrics.contains_key(r#"sapwood_log_size_bytes{topic="orders"}"#),
        "{text}"
    );
    assert!(!text.contains("partition=\""), "{text}");
    broker.drain_and_close().await.expect("closes");
}

/// Two partitions of three records each, and a group that stands at 1 and 3.
async fn billing(broker: &Broker, group: &str) {
    create(broker, "orders", 2).await;
    for partition in [0, 1] {
        let mut builder = BatchBuilder::new(Codec::None);
        for age_ms in [90_000, 60_000, 30_000] {
            let timestamp = Timestamp(broker.environment().clock.now().0 - age_ms);
            let value = Some(&b"paid"[..]);
            let (key, headers) = (None, &[][..]);
            let record = RecordInput {
                timestamp,
                key,
                value,
                headers,
            };
            builder.push(record).expect("has room");
        }
        let produce = Produce {
            topic: "orders".into(),
            partition: PartitionId(partition),
            batch: builder.build().expect("builds").to_bytes(),
            acks: Acks::All,
            expected_end: None,
            auto_create: false,
        };
        let pending = broker.produce(produce).await.expect("is taken");
        pending.await.expect("is durable");
    }
    broker.groups().prepare().await.expect("makes the topic");
    while broker.groups().load_progress().loading > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let to = |partition, offset| SeekTarget {
        partitions: SeekPartitions::One(TopicPartition {
            topic: TopicName::new("orders").expect("a name"),
            partition: PartitionId(partition),
        }),
        to: SeekPosition::Offset(Offset(offset)),
    };
    let targets = vec![to(0, 1), to(1, 3)];
    let sought = broker.groups().seek(&group.into(), targets, false).await;
    sought.expect("is sent there");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_show_how_far_they_are_behind_also_by_the_names_of_kafkas_exporter() {
    let served = Served::new(true).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let broker = broker(&folder).await;
    billing(&broker, "bill\"ing\n").await;
    served.health.ready(broker.clone());
    let (_, _, text) = served.get("/metrics").await;
    let metrics = parse(&text);
    let value = |name: &str, labels: &str| {
        let series = match labels {
            "" => name.to_owned(),
            labels => format!("{name}{{{labels}}}"),
        };
        *metrics
            .get(&series)
            .unwrap_or_else(|| panic!("no {series}\n{text}"))
    };
    let group = r#"group="bill\"ing\n""#;
    let first = format!(r#"{group},topic="orders",partition="0""#);
    let second = format!(r#"{group},topic="orders",partition="1""#);
    assert_eq!(value("sapwood_group_committed_offset", &first), 1.0);
    assert_eq!(value("sapwood_group_lag_records", &first), 2.0);
    assert_eq!(value("sapwood_group_lag_records", &second), 0.0);
    assert_eq!(value("sapwood_group_lost_records", &first), 0.0);
    let behind = value("sapwood_group_lag_seconds", &first);
    assert!((60.0..90.0).contains(&behind), "{behind}");
    assert_eq!(value("sapwood_group_lag_seconds", &second), 0.0);
    let headroom = value("sapwood_group_retention_headroom_seconds", &first);
    let week = 7.0 * 24.0 * 3_600.0;
    assert!(
        (behind + headroom - week).abs() < 0.001,
        "{behind} and {headroom}"
    );
    assert!(!text.contains(&format!("headroom_seconds{{{second}}}")));
    assert_eq!(value("sapwood_group_members", group), 0.0);
    assert_eq!(
        value("sapwood_group_state", &format!(r#"{group},state="empty""#)),
        1.0
    );
    assert_eq!(value("sapwood_group_rebalances_total", group), 0.0);
    assert_eq!(value("sapwood_groups", r#"state="empty""#), 1.0);
    assert_eq!(value("sapwood_groups_left_out", ""), 0.0);
    assert_eq!(
        value("sapwood_group_coordinators", r#"state="loaded""#),
        16.0
    );
    assert_eq!(
        value("sapwood_group_commit_duration_seconds_count", ""),
        1.0
    );
    let rebalances = "sapwood_group_rebalance_duration_seconds_count";
    assert_eq!(value(rebalances, r#"kind="consumer""#), 0.0);

    let group = group.replace("group=", "consumergroup=");
    let topic = format!(r#"{group},topic="orders""#);
    let first = format!(r#"{topic},partition="0""#);
    assert_eq!(value("kafka_consumergroup_lag", &first), 2.0);
    assert_eq!(value("kafka_consumergroup_current_offset", &first), 1.0);
    assert_eq!(value("kafka_consumergroup_lag_sum", &topic), 2.0);
    assert_eq!(value("kafka_consumergroup_current_offset_sum", &topic), 4.0);
    assert_eq!(value("kafka_consumergroup_members", &group), 0.0);
    assert_eq!(value("kafka_topic_partitions", r#"topic="orders""#), 2.0);
    let ends = value(
        "kafka_topic_partition_current_offset",
        r#"topic="orders",partition="1""#,
    );
    assert_eq!(ends, 3.0);
    broker.drain_and_close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_series_for_partitions_a_group_shows_the_sum_and_the_worst_of_each_topic() {
    let served = Served::new(false).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let broker = broker(&folder).await;
    billing(&broker, "billing").await;
    served.health.ready(broker.clone());
    let (_, _, text) = served.get("/metrics").await;
    let metrics = parse(&text);
    let value = |name: &str, group: &str| {
        metrics[&format!("{name}{{{group}=\"billing\",topic=\"orders\"}}")]
    };
    assert_eq!(value("sapwood_group_lag_records", "group"), 2.0);
    assert_eq!(value("sapwood_group_committed_offset", "group"), 4.0);
    assert!(value("sapwood_group_lag_seconds", "group") >= 60.0);
    assert!(value("sapwood_group_retention_headroom_seconds", "group") > 0.0);
    assert_eq!(value("kafka_consumergroup_lag", "consumergroup"), 2.0);
    assert_eq!(value("kafka_consumergroup_lag_sum", "consumergroup"), 2.0);
    assert!(!text.contains("partition=\""), "{text}");
    broker.drain_and_close().await.expect("closes");
}

/// Reads the OpenMetrics text strictly: every series belongs to the family announced before it, no
/// series comes twice, buckets only rise, counters are named `_total`, the end is marked.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::new();
    let mut families = BTreeSet::new();
    let (mut family, mut kind, mut ended) = (String::new(), String::new(), false);
    let mut bucket: Option<(String, f64)> = None;
    for line in text.lines() {
        assert!(!ended, "a line after the end: {line}");
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<&str> = comment.splitn(3, ' ').collect();
            match words[..] {
                ["EOF"] => ended = true,
                ["HELP", name, help] => {
                    assert!(families.insert(name.to_owned()), "{name} comes twice");
                    assert!(help.ends_with('.') && name.is_ascii(), "{line}");
                    name.clone_into(&mut family);
                }
                ["TYPE", name, of] => {
                    assert_eq!(name, family);
                    of.clone_into(&mut kind);
                }
                ["UNIT", name, unit] => {
                    assert!(
                        name == family && name.ends_with(&format!("_{unit}")),
                        "{line}"
                    );
                }
                _ => panic!("not a comment of the format: {line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a series and a value");
        let value: f64 = value.parse().expect("a number");
        let name = series.split('{').next().expect("has a name");
        let suffix = name
            .strip_prefix(family.as_str())
            .expect("belongs to the family before it");
        let suffixes: &[&str] = match kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "info" => &["_info"],
            "histogram" => &["_sum", "_count", "_bucket"],
            other => panic!("{other} is not a kind that is used"),
        };
        assert!(
            suffixes.contains(&suffix),
            "{kind} with the suffix {suffix:?}: {line}"
        );
        if suffix == "_bucket" {
            let (before, rest) = series.split_once("le=\"").expect("has a bound");
            let (_, after) = rest.split_once('"').expect("is closed");
            let labels = format!("{before}{after}");
            if let Some((of, before)) = &bucket
                && *of == labels
            {
                assert!(value >= *before, "a bucket falls: {line}");
            }
            bucket = Some((labels, value));
        }
        assert!(
            metrics.insert(series.to_owned(), value).is_none(),
            "{series} comes twice"
        );
    }
    assert!(ended, "the end is not marked");
    metrics
}
