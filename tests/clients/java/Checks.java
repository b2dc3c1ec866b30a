import static java.nio.charset.StandardCharsets.UTF_8;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

/**
 * The checks of README.md with Kafka's own Java client.
 *
 * <p>{@code java -cp 'kafka-clients.jar:...' Checks.java HOST:PORT PREFIX}
 */
public final class Checks {
    private static final int RECORDS = 10_000;
    private static final int PARTITIONS = 3;
    private static final long SECONDS = 30;
    private static final String UNKNOWN = "UNKNOWN_TOPIC_OR_PARTITION";

    private final String broker;
    private final String prefix;
    private final long base = System.currentTimeMillis() / 1000 * 1000 - 3_600_000;
    private final Admin admin;
    private final KafkaConsumer<byte[], byte[]> consumer;
    private String full;

    /** A record as it is written, or without its offset as it is read. */
    private record Written(int partition, byte[] key, byte[] value, List<Header> headers, long timestamp) {
        @Override
        public boolean equals(Object other) {
            return other instanceof Written that
                    && partition == that.partition
                    && Arrays.equals(key, that.key)
                    && Arrays.equals(value, that.value)
                    && headers.equals(that.headers)
                    && timestamp == that.timestamp;
        }

        @Override
        public int hashCode() {
            return Objects.hash(partition, timestamp);
        }

        @Override
        public String toString() {
            return "partition %d key %s value %s headers %s time %d"
                    .formatted(partition, hex(key), hex(value), headers, timestamp);
        }

        private static String hex(byte[] bytes) {
            return bytes == null ? "null" : HexFormat.of().formatHex(bytes);
        }
    }

    private record Read(long offset, Written written) {}

    private interface Check {
        String run() throws Exception;
    }

    private interface Call {
        void run() throws Exception;
    }

    public static void main(String[] arguments) {
        new Checks(arguments[0], arguments[1]).runAll();
    }

    private Checks(String broker, String prefix) {
        this.broker = broker;
        this.prefix = prefix;
        admin = Admin.create(Map.of("bootstrap.servers", broker, "default.api.timeout.ms", "30000"));
        consumer = new KafkaConsumer<>(
                Map.of(
                        "bootstrap.servers", broker,
                        "enable.auto.commit", "false",
                        "auto.offset.reset", "none",
                        "allow.auto.create.topics", "false",
                        "default.api.timeout.ms", "10000"),
                new ByteArrayDeserializer(),
                new ByteArrayDeserializer());
    }

    private void runAll() {
        System.out.printf("{\"client\": %s}%n", json("kafka-clients " + AppInfoParser.getVersion()));
        report("describe-cluster", this::describeCluster);
        report("create-topic", this::createTopic);
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            report("round-trip-" + codec, () -> roundTrip(codec));
        }
        report("idempotence", this::idempotence);
        report("acks", this::acks);
        report("null-and-empty", this::nullAndEmpty);
        report("own-partitions", this::ownPartitions);
        report("seek-by-timestamp", this::seekByTimestamp);
        report("seek-by-offset", this::seekByOffset);
        report("watermarks", this::watermarks);
        report("read-configs", this::readConfigs);
        report("alter-configs", this::alterConfigs);
        report("add-partitions", this::addPartitions);
        report("delete-records", this::deleteRecords);
        report("recreate-topic", this::recreateTopic);
        report("auto-creation", this::autoCreation);
        report("record-too-large", this::recordTooLarge);
        report("unknown-topic", this::unknownTopic);
        report("invalid-topic", this::invalidTopic);
        report("transactions-refused", this::transactionsRefused);
        consumer.close();
        admin.close(Duration.ofSeconds(5));
    }

    private static void report(String name, Check check) {
        long started = System.nanoTime();
        boolean ok = true;
        String detail;
        try {
            detail = check.run();
        } catch (Exception | AssertionError failure) {
            failure.printStackTrace();
            ok = false;
            detail = failure.toString();
        }
        double seconds = (System.nanoTime() - started) / 10_000_000 / 100.0;
        System.out.printf(
                "{\"check\": %s, \"ok\": %b, \"detail\": %s, \"seconds\": %s}%n",
                json(name), ok, json(detail), seconds);
    }

    private static String json(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                quoted.append('\\').append(c);
            } else if (c < 0x20) {
                quoted.append("\\u%04x".formatted((int) c));
            } else {
                quoted.append(c);
            }
        }
        return quoted.append('"').toString();
    }

    private static void equal(Object actual, Object expected, String what) {
        if (!Objects.equals(actual, expected)) {
            throw new AssertionError("%s is %s, expected %s".formatted(what, actual, expected));
        }
    }

    /** The protocol's name of the error with which a call fails; "no error" when it does not. */
    private static String errorOf(Call call) {
        try {
            call.run();
            return "no error";
        } catch (ExecutionException failure) {
            return Errors.forException(failure.getCause()).name();
        } catch (OffsetOutOfRangeException failure) {
            return "OFFSET_OUT_OF_RANGE";
        } catch (Exception failure) {
            return Errors.forException(failure).name();
        }
    }

    private static void refused(Call call, String name, String what) {
        equal(errorOf(call), name, "the error of " + what);
    }

    private static <T> T get(Future<T> future) throws Exception {
        return future.get(SECONDS, TimeUnit.SECONDS);
    }

    /** Waits until a question has this answer: changes reach a client's view a little later. */
    private static void settles(Supplier<Object> question, Object expected, String what) throws Exception {
        long deadline = System.nanoTime() + Duration.ofSeconds(10).toNanos();
        while (true) {
            Object answer = question.get();
            if (Objects.equals(answer, expected)) {
                return;
            }
            if (System.nanoTime() > deadline) {
                throw new AssertionError("%s stays %s, expected %s".formatted(what, answer, expected));
            }
            Thread.sleep(50);
        }
    }

    // What the client does.

    private void create(String topic, int partitions) throws Exception {
        get(admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all());
    }

    private int partitions(String topic) {
        try {
            return get(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic).partitions().size();
        } catch (Exception failure) {
            equal(errorOf(() -> { throw failure; }), UNKNOWN, "the error of DescribeTopicPartitions");
            return 0;
        }
    }

    private String make(String name, int partitions) throws Exception {
        String topic = prefix + "-" + name;
        create(topic, partitions);
        settles(() -> partitions(topic), partitions, "the size of " + topic);
        return topic;
    }

    private List<Long> produce(String topic, List<Written> records, Map<String, Object> settings) throws Exception {
        Map<String, Object> all = new LinkedHashMap<>(Map.of(
                "bootstrap.servers", broker,
                "linger.ms", "1",
                "max.request.size", "10000000",
                "delivery.timeout.ms", "30000",
                "request.timeout.ms", "20000"));
        all.putAll(settings);
        try (var producer = new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (Written record : records) {
                sent.add(producer.send(new ProducerRecord<>(
                        topic, record.partition, record.timestamp, record.key, record.value, record.headers)));
            }
            producer.flush();
            List<Long> offsets = new ArrayList<>();
            for (Future<RecordMetadata> one : sent) {
                offsets.add(get(one).offset());
            }
            return offsets;
        }
    }

    private List<Long> produce(String topic, List<Written> records) throws Exception {
        return produce(topic, records, Map.of());
    }

    /** Reads from an offset, or with null from the earliest. */
    private List<Read> read(String topic, int partition, Long start, int count) {
        TopicPartition wanted = new TopicPartition(topic, partition);
        consumer.assign(List.of(wanted));
        if (start == null) {
            consumer.seekToBeginning(List.of(wanted));
        } else {
            consumer.seek(wanted, start);
        }
        List<Read> records = new ArrayList<>();
        long deadline = System.nanoTime() + Duration.ofSeconds(SECONDS).toNanos();
        while (records.size() < count) {
            if (System.nanoTime() > deadline) {
                throw new AssertionError("only %d of %d records came".formatted(records.size(), count));
            }
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                equal(record.timestampType(), TimestampType.CREATE_TIME, "the kind of the time at " + record.offset());
                records.add(new Read(
                        record.offset(),
                        new Written(
                                record.partition(),
                                record.key(),
                                record.value(),
                                List.of(record.headers().toArray()),
                                record.timestamp())));
            }
        }
        return records.subList(0, count);
    }

    private List<Long> watermarks(String topic, int partition) {
        TopicPartition asked = new TopicPartition(topic, partition);
        return List.of(
                consumer.beginningOffsets(List.of(asked)).get(asked), consumer.endOffsets(List.of(asked)).get(asked));
    }

    private Long offsetFor(String topic, int partition, long timestamp) {
        TopicPartition asked = new TopicPartition(topic, partition);
        var found = consumer.offsetsForTimes(Map.of(asked, timestamp)).get(asked);
        return found == null ? null : found.offset();
    }

    private Map<String, String> configs(String topic) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        return get(admin.describeConfigs(List.of(resource)).all()).get(resource).entries().stream()
                .collect(Collectors.toMap(
                        ConfigEntry::name, entry -> entry.value() + (entry.isDefault() ? " by default" : "")));
    }

    private String config(String topic, String key) {
        try {
            return configs(topic).get(key);
        } catch (Exception failure) {
            throw new AssertionError(failure);
        }
    }

    private void alter(String topic, String key, String value, AlterConfigOp.OpType operation) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        var change = new AlterConfigOp(new ConfigEntry(key, value), operation);
        get(admin.incrementalAlterConfigs(Map.of(resource, List.of(change))).all());
    }

    private void addPartitionsTo(String topic, int total) throws Exception {
        get(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(total))).all());
    }

    private long deleteBefore(String topic, long offset) throws Exception {
        TopicPartition asked = new TopicPartition(topic, 0);
        var deleted = admin.deleteRecords(Map.of(asked, RecordsToDelete.beforeOffset(offset)));
        return get(deleted.lowWatermarks().get(asked)).lowWatermark();
    }

    // Records and what must be true of them.

    private Written record(int n, int partition) {
        List<Header> headers = List.of(
                new RecordHeader("client", "a b".getBytes(UTF_8)),
                new RecordHeader("number", Integer.toString(n).getBytes(UTF_8)));
        String value = "value " + n + " " + "grün ".repeat(n % 20);
        return new Written(partition, ("key-" + n).getBytes(UTF_8), value.getBytes(UTF_8), headers, base + 100L * n);
    }

    private List<Written> records(int count) {
        return IntStream.range(0, count).mapToObj(n -> record(n, n % PARTITIONS)).toList();
    }

    private List<Written> inOnePartition(int from, int to) {
        return IntStream.range(from, to).mapToObj(n -> record(n, 0)).toList();
    }

    private void checkRead(String topic, List<Written> records, long first) {
        Set<Integer> partitions = records.stream().map(Written::partition).collect(Collectors.toSet());
        for (int partition : partitions) {
            List<Written> expected = records.stream().filter(r -> r.partition == partition).toList();
            List<Read> read = read(topic, partition, first, expected.size());
            for (int i = 0; i < expected.size(); i++) {
                String place = "offset " + (first + i) + " of partition " + partition;
                equal(read.get(i).offset, first + i, place);
                equal(read.get(i).written, expected.get(i), "the record at " + place);
            }
        }
    }

    private void checkOffsets(List<Long> offsets, List<Written> records, long... first) {
        long[] following = Arrays.copyOf(first, PARTITIONS);
        for (int i = 0; i < records.size(); i++) {
            equal(offsets.get(i), following[records.get(i).partition]++, "an acknowledged offset");
        }
        equal(offsets.size(), records.size(), "the number of acknowledged offsets");
    }

    // The checks.

    private String describeCluster() throws Exception {
        var cluster = admin.describeCluster();
        List<String> nodes = get(cluster.nodes()).stream().map(node -> node.host() + ":" + node.port()).toList();
        equal(nodes, List.of(broker), "the addresses of the nodes");
        equal(get(cluster.controller()), get(cluster.nodes()).iterator().next(), "the controller");
        int id = get(cluster.controller()).id();
        var directories = get(admin.describeLogDirs(List.of(id)).allDescriptions()).get(id);
        equal(directories.size(), 1, "the number of data directories");
        return "DescribeCluster, DescribeLogDirs; cluster " + get(cluster.clusterId());
    }

    private String createTopic() throws Exception {
        String topic = make("created", PARTITIONS);
        refused(() -> create(topic, PARTITIONS), "TOPIC_ALREADY_EXISTS", "creating it again");
        return "";
    }

    private String roundTrip(String codec) throws Exception {
        String topic = make(codec, PARTITIONS);
        List<Written> records = records(RECORDS);
        long started = System.nanoTime();
        var settings = Map.<String, Object>of("compression.type", codec, "enable.idempotence", "true");
        checkOffsets(produce(topic, records, settings), records, 0, 0, 0);
        long written = System.nanoTime();
        checkRead(topic, records, 0);
        full = topic;
        return "written in %.2f s, read in %.2f s".formatted((written - started) / 1e9, (System.nanoTime() - written) / 1e9);
    }

    private String idempotence() throws Exception {
        String topic = make("idempotent", PARTITIONS);
        List<Written> records = records(1000);
        for (int earlier = 0; earlier < 3; earlier++) {
            // Each producer gets an id of its own and begins its sequence anew.
            List<Long> offsets = produce(topic, records, Map.of("enable.idempotence", "true"));
            checkOffsets(offsets, records, 334L * earlier, 333L * earlier, 333L * earlier);
        }
        equal(watermarks(topic, 0), List.of(0L, 1002L), "the watermarks after three producers");
        TopicPartition asked = new TopicPartition(topic, 0);
        var described = get(admin.describeProducers(List.of(asked)).partitionResult(asked));
        equal(described.activeProducers().size(), 3, "the number of producers that DescribeProducers knows");
        return "";
    }

    private String acks() throws Exception {
        String topic = make("acks", PARTITIONS);
        var settings = Map.<String, Object>of("acks", "0", "enable.idempotence", "false");
        produce(topic, inOnePartition(0, 50), settings);
        settles(() -> watermarks(topic, 0), List.of(0L, 50L), "what acks=0 wrote");
        settings = Map.of("acks", "1", "enable.idempotence", "false");
        checkOffsets(produce(topic, inOnePartition(50, 100), settings), inOnePartition(50, 100), 50);
        checkRead(topic, inOnePartition(0, 100), 0);
        return "";
    }

    private String nullAndEmpty() throws Exception {
        String topic = make("nulls", 1);
        byte[] empty = {};
        byte[] text = "text".getBytes(UTF_8);
        byte[] noText = {(byte) 0xc3, 0x28};
        List<Header> headers = List.of(
                new RecordHeader("null", (byte[]) null),
                new RecordHeader("empty", empty),
                new RecordHeader("", text),
                new RecordHeader("grün", noText),
                new RecordHeader("null", text));
        List<Written> records = List.of(
                new Written(0, null, text, List.of(), base),
                new Written(0, empty, text, List.of(), base),
                new Written(0, text, null, List.of(), base),
                new Written(0, text, empty, List.of(), base),
                new Written(0, new byte[] {0, -1, -2}, noText, List.of(), base),
                new Written(0, text, empty, headers, base),
                new Written(0, null, null, List.of(), base));
        checkOffsets(produce(topic, records), records, 0);
        checkRead(topic, records, 0);
        return "";
    }

    private String ownPartitions() {
        for (int partition = 0; partition < PARTITIONS; partition++) {
            Read first = read(full, partition, null, 1).get(0);
            equal(first, new Read(0, record(partition, partition)), "the first record of partition " + partition);
        }
        return "";
    }

    private String seekByTimestamp() throws Exception {
        // Record n has the time base + 100 n; partition 1 holds 1, 4, 7 ...
        equal(offsetFor(full, 1, 0), 0L, "the offset of time 0");
        equal(offsetFor(full, 1, base + 100), 0L, "the offset of the first time");
        equal(offsetFor(full, 1, base + 101), 1L, "the offset just after it");
        equal(offsetFor(full, 1, base + 400 + 300 * 1234), 1235L, "the offset of a time in the middle");
        equal(offsetFor(full, 1, base + 100L * RECORDS), null, "the offset of a time that has not come");
        Read found = read(full, 1, 1235L, 1).get(0);
        equal(found.written.timestamp, base + 400 + 300 * 1234, "the time of the record there");
        TopicPartition asked = new TopicPartition(full, 1);
        var latest = get(admin.listOffsets(Map.of(asked, OffsetSpec.maxTimestamp())).partitionResult(asked));
        equal(latest.offset(), 3332L, "the offset of the largest time");
        return "";
    }

    private String seekByOffset() throws Exception {
        for (int offset : List.of(0, 1, 1000, 2345, 3332)) {
            Read found = read(full, 2, (long) offset, 1).get(0);
            equal(found, new Read(offset, record(3 * offset + 2, 2)), "what is at " + offset);
        }
        refused(() -> read(full, 2, 99_999L, 1), "OFFSET_OUT_OF_RANGE", "reading beyond the end");
        return "";
    }

    private String watermarks() throws Exception {
        for (int partition = 0; partition < PARTITIONS; partition++) {
            long count = partition == 0 ? 3334 : 3333;
            equal(watermarks(full, partition), List.of(0L, count), "the watermarks of partition " + partition);
        }
        equal(watermarks(make("empty", 1), 0), List.of(0L, 0L), "the watermarks of an empty partition");
        return "";
    }

    private String readConfigs() throws Exception {
        var configs = configs(make("configs", 1));
        var expected = Map.of(
                "cleanup.policy", "delete",
                "compression.type", "producer",
                "max.message.bytes", "1048588",
                "message.timestamp.type", "CreateTime",
                "retention.ms", "604800000",
                "segment.bytes", "1073741824");
        expected.forEach((key, value) -> equal(configs.get(key), value + " by default", key));
        return configs.size() + " keys";
    }

    private String alterConfigs() throws Exception {
        String topic = make("altered", 1);
        var set = AlterConfigOp.OpType.SET;
        alter(topic, "retention.ms", "86400000", set);
        settles(() -> config(topic, "retention.ms"), "86400000", "retention.ms");
        alter(topic, "cleanup.policy", "compact", AlterConfigOp.OpType.APPEND);
        settles(() -> config(topic, "cleanup.policy"), "delete,compact", "cleanup.policy");
        alter(topic, "cleanup.policy", "delete", AlterConfigOp.OpType.SUBTRACT);
        settles(() -> config(topic, "cleanup.policy"), "compact", "cleanup.policy");
        alter(topic, "retention.ms", null, AlterConfigOp.OpType.DELETE);
        settles(() -> config(topic, "retention.ms"), "604800000 by default", "retention.ms");
        refused(() -> alter(topic, "retention.ms", "soon", set), "INVALID_CONFIG", "a value of the wrong kind");
        refused(() -> alter(topic, "no.such.key", "1", set), "INVALID_CONFIG", "an unknown key");
        return "";
    }

    private String addPartitions() throws Exception {
        String topic = make("grown", PARTITIONS);
        addPartitionsTo(topic, 5);
        settles(() -> partitions(topic), 5, "the number of partitions");
        equal(produce(topic, List.of(record(1, 4))), List.of(0L), "the offset in the new partition");
        checkRead(topic, List.of(record(1, 4)), 0);
        refused(() -> addPartitionsTo(topic, 2), "INVALID_PARTITIONS", "taking partitions away");
        return "";
    }

    private String deleteRecords() throws Exception {
        String topic = make("trimmed", 1);
        produce(topic, inOnePartition(0, 1000));
        equal(deleteBefore(topic, 400), 400L, "the new log start");
        equal(watermarks(topic, 0), List.of(400L, 1000L), "the watermarks");
        checkRead(topic, inOnePartition(400, 1000), 400);
        equal(read(topic, 0, null, 1).get(0).offset, 400L, "the first offset");
        refused(() -> read(topic, 0, 399L, 1), "OFFSET_OUT_OF_RANGE", "reading below the log start");
        refused(() -> deleteBefore(topic, 1001), "OFFSET_OUT_OF_RANGE", "deleting beyond the end");
        return "";
    }

    private String recreateTopic() throws Exception {
        String topic = make("again", PARTITIONS);
        produce(topic, records(30));
        get(admin.deleteTopics(List.of(topic)).all());
        settles(() -> partitions(topic), 0, "the number of partitions after the deletion");
        create(topic, 1);
        settles(() -> partitions(topic), 1, "the number of partitions of the new one");
        equal(watermarks(topic, 0), List.of(0L, 0L), "the watermarks of the new one");
        equal(produce(topic, List.of(record(7, 0))), List.of(0L), "the first offset of the new one");
        checkRead(topic, List.of(record(7, 0)), 0);
        return "";
    }

    private String autoCreation() throws Exception {
        String topic = prefix + "-unannounced";
        equal(produce(topic, List.of(record(1, 0))), List.of(0L), "the first offset");
        checkRead(topic, List.of(record(1, 0)), 0);
        return "";
    }

    private String recordTooLarge() throws Exception {
        String topic = make("large", 1);
        Written large = new Written(0, null, new byte[2 << 20], List.of(), base);
        refused(() -> produce(topic, List.of(large)), "MESSAGE_TOO_LARGE", "a large record");
        equal(produce(topic, List.of(record(2, 0))), List.of(0L), "the offset of the next record");
        checkRead(topic, List.of(record(2, 0)), 0);
        return "";
    }

    private String unknownTopic() {
        String topic = prefix + "-nowhere";
        refused(() -> get(admin.describeTopics(List.of(topic)).allTopicNames()), UNKNOWN, "DescribeTopicPartitions");
        refused(() -> get(admin.deleteTopics(List.of(topic)).all()), UNKNOWN, "DeleteTopics");
        refused(() -> configs(topic), UNKNOWN, "DescribeConfigs");
        refused(() -> addPartitionsTo(topic, 5), UNKNOWN, "CreatePartitions");
        equal(consumer.partitionsFor(topic), List.of(), "the partitions that the consumer is told");
        return "DescribeTopicPartitions, DeleteTopics, DescribeConfigs, CreatePartitions, Metadata";
    }

    private String invalidTopic() {
        for (String name : List.of("a b", "..", "a".repeat(250), "grün")) {
            refused(() -> create(name, 1), "INVALID_TOPIC_EXCEPTION", "the name " + name);
        }
        return "";
    }

    private String transactionsRefused() {
        long started = System.nanoTime();
        Map<String, Object> settings =
                Map.of("bootstrap.servers", broker, "transactional.id", "a transaction", "max.block.ms", "30000");
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            String error = errorOf(producer::initTransactions);
            double seconds = (System.nanoTime() - started) / 1e9;
            if (error.equals("no error") || error.equals("REQUEST_TIMED_OUT")) {
                throw new AssertionError("not refused but %s after %.1f s".formatted(error, seconds));
            }
            return "%s, after %.1f s".formatted(error, seconds);
        }
    }
}
