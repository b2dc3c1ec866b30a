import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.Collection;
import java.util.Comparator;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * The member of a group of README.md with Kafka's own Java client.
 *
 * <p>{@code java -cp 'kafka-clients.jar:...' Group.java group HOST:PORT GROUP TOPIC PROTOCOL
 * [--instance ID] [--regex] [--commit-every N]}
 */
public final class Group {
    private static final Duration POLL = Duration.ofMillis(200);

    private final Options options;
    private final KafkaConsumer<byte[], byte[]> consumer;
    private final Comparator<TopicPartition> order =
            Comparator.comparing(TopicPartition::topic).thenComparing(TopicPartition::partition);
    private final TreeSet<TopicPartition> held = new TreeSet<>(order);
    /** The offset after the last one that was read, where that is not committed. */
    private final TreeMap<TopicPartition, Long> read = new TreeMap<>(order);
    private int uncommitted;
    private volatile boolean closing;

    private static final class Options {
        private final String broker;
        private final String group;
        private final String topic;
        private final String protocol;
        private String instance;
        private boolean regex;
        private int commitEvery = 1;

        Options(String[] arguments) {
            broker = arguments[1];
            group = arguments[2];
            topic = arguments[3];
            protocol = arguments[4];
            Iterator<String> flags = List.of(arguments).subList(5, arguments.length).iterator();
            while (flags.hasNext()) {
                String flag = flags.next();
                switch (flag) {
                    case "--instance" -> instance = flags.next();
                    case "--regex" -> regex = true;
                    case "--commit-every" -> commitEvery = Integer.parseInt(flags.next());
                    default -> throw new IllegalArgumentException("unknown argument " + flag);
                }
            }
        }

        boolean isConsumerProtocol() {
            return protocol.equals("consumer");
        }

        Map<String, Object> config() {
            Map<String, Object> config = new HashMap<>(Map.of(
                    "bootstrap.servers", broker,
                    "client.id", "group",
                    "group.id", group,
                    "enable.auto.commit", "false",
                    "auto.offset.reset", "earliest",
                    "metadata.max.age.ms", "500",
                    "reconnect.backoff.max.ms", "500",
                    "allow.auto.create.topics", "false"));
            if (instance != null) {
                config.put("group.instance.id", instance);
            }
            if (isConsumerProtocol()) {
                // The broker sets the timeouts, and chooses among its assignors.
                config.put("group.protocol", "consumer");
            } else {
                boolean cooperative = protocol.equals("cooperative");
                config.put("session.timeout.ms", "6000");
                config.put("heartbeat.interval.ms", "500");
                config.put(
                        "partition.assignment.strategy",
                        (cooperative ? CooperativeStickyAssignor.class : RangeAssignor.class).getName());
            }
            return config;
        }
    }

    /** Says what the member holds; what it is about to give up is committed before. */
    private final class Listener implements ConsumerRebalanceListener {
        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            held.addAll(partitions);
            printAssigned();
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            if (!partitions.isEmpty()) {
                tryCommit();
                forget(partitions);
            }
        }

        @Override
        public void onPartitionsLost(Collection<TopicPartition> partitions) {
            forget(partitions);
        }

        private void forget(Collection<TopicPartition> partitions) {
            partitions.forEach(held::remove);
            partitions.forEach(read::remove);
            printAssigned();
        }
    }

    public static void main(String[] arguments) {
        try {
            new Group(new Options(arguments)).run();
        } catch (KafkaException failure) {
            failure.printStackTrace();
            print("error", "\"detail\": " + json(failure.toString()));
            System.exit(1);
        }
        print("closed", "");
        System.exit(0);
    }

    private Group(Options options) {
        this.options = options;
        consumer = new KafkaConsumer<>(options.config(), new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private void run() {
        Thread listener = new Thread(this::listen);
        listener.setDaemon(true);
        listener.start();
        subscribe();
        while (!closing) {
            try {
                take(consumer.poll(POLL));
            } catch (RetriableException goesOn) {
                continue;
            }
            if (uncommitted >= options.commitEvery) {
                tryCommit();
            }
        }
        tryCommit();
        consumer.close();
    }

    /** Waits for the word to close, or for the end of standard input. */
    private void listen() {
        try (var lines = new BufferedReader(new InputStreamReader(System.in))) {
            String line;
            do {
                line = lines.readLine();
            } while (line != null && !line.equals("close"));
        } catch (IOException ended) {
            // Nobody can say it any more.
        }
        // A poll is short; to wake it up could hit the commit or the close that follow it.
        closing = true;
    }

    private void subscribe() {
        Listener listener = new Listener();
        if (!options.regex) {
            consumer.subscribe(List.of(options.topic), listener);
        } else if (options.isConsumerProtocol()) {
            // The broker finds what matches.
            consumer.subscribe(new SubscriptionPattern(options.topic), listener);
        } else {
            consumer.subscribe(Pattern.compile(options.topic), listener);
        }
    }

    private void take(ConsumerRecords<byte[], byte[]> records) {
        for (TopicPartition partition : records.partitions()) {
            long from = -1;
            long to = -1;
            for (ConsumerRecord<byte[], byte[]> record : records.records(partition)) {
                if (record.offset() != to) {
                    printRun(partition, from, to);
                    from = record.offset();
                }
                to = record.offset() + 1;
            }
            printRun(partition, from, to);
            read.put(partition, to);
        }
        uncommitted += records.count();
    }

    /** Commits what was read; where that fails, the next commit takes it along. */
    private void tryCommit() {
        if (read.isEmpty()) {
            return;
        }
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        read.forEach((partition, offset) -> offsets.put(partition, new OffsetAndMetadata(offset)));
        try {
            consumer.commitSync(offsets);
        } catch (CommitFailedException | RebalanceInProgressException | RetriableException goesOn) {
            return;
        }
        read.forEach((partition, offset) -> print("committed", place(partition) + ", \"offset\": " + offset));
        read.clear();
        uncommitted = 0;
    }

    private void printAssigned() {
        String partitions = held.stream()
                .map(one -> "[%s, %d]".formatted(json(one.topic()), one.partition()))
                .collect(Collectors.joining(", ", "[", "]"));
        print("assigned", "\"partitions\": " + partitions);
    }

    private static void printRun(TopicPartition partition, long from, long to) {
        if (from != to) {
            print("records", place(partition) + ", \"from\": %d, \"to\": %d".formatted(from, to));
        }
    }

    private static String place(TopicPartition partition) {
        return "\"topic\": %s, \"partition\": %d".formatted(json(partition.topic()), partition.partition());
    }

    /** A line of JSON. */
    private static void print(String event, String fields) {
        String separator = fields.isEmpty() ? "" : ", ";
        System.out.println("{\"event\": \"" + event + "\"" + separator + fields + "}");
        System.out.flush();
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
}
