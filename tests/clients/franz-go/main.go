// The checks of ../README.md with franz-go, a client in Go.
//
//	checks HOST:PORT PREFIX
//
// With group it is the member of a group in group.go instead.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime/debug"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	recordCount = 10_000
	partitions  = 3
	limit       = 30 * time.Second
	unknown     = "UNKNOWN_TOPIC_OR_PARTITION"
)

var codecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

func main() {
	if os.Args[1] == "group" {
		runGroup(os.Args[2:])
		return
	}
	// Answers are kept for so long, 5 s if nothing is said; deleted topics would stay that long.
	client, err := kgo.NewClient(kgo.SeedBrokers(os.Args[1]), kgo.MetadataMinAge(20*time.Millisecond))
	must(err)
	c := &checks{
		broker: os.Args[1],
		prefix: os.Args[2],
		base:   time.Now().Unix()*1000 - 3_600_000,
		admin:  kadm.NewClient(client),
	}
	fmt.Printf("{\"client\": \"franz-go %s\"}\n", version())
	report("describe-cluster", c.describeCluster)
	report("create-topic", c.createTopic)
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		report("round-trip-"+codec, func() string { return c.roundTrip(codec) })
	}
	report("idempotence", c.idempotence)
	report("acks", c.acks)
	report("null-and-empty", c.nullAndEmpty)
	report("own-partitions", c.ownPartitions)
	report("seek-by-timestamp", c.seekByTimestamp)
	report("seek-by-offset", c.seekByOffset)
	report("watermarks", c.watermarks)
	report("read-configs", c.readConfigs)
	report("alter-configs", c.alterConfigs)
	report("add-partitions", c.addPartitions)
	report("delete-records", c.deleteRecords)
	report("recreate-topic", c.recreateTopic)
	report("auto-creation", c.autoCreation)
	report("record-too-large", c.recordTooLarge)
	report("unknown-topic", c.unknownTopic)
	report("invalid-topic", c.invalidTopic)
	report("transactions-refused", c.transactionsRefused)
}

// version is that of franz-go in this program.
func version() string {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == "github.com/twmb/franz-go" {
			return strings.TrimPrefix(module.Version, "v")
		}
	}
	return "of no version"
}

// failure is what a check panics with, to be caught by report.
type failure struct{ text string }

func fail(format string, arguments ...any) {
	panic(failure{fmt.Sprintf(format, arguments...)})
}

func must(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func equal(actual, expected any, what string) {
	if !reflect.DeepEqual(actual, expected) {
		fail("%s is %v, expected %v", what, actual, expected)
	}
}

// report runs one check and prints its line.
func report(name string, check func() string) {
	started := time.Now()
	line := struct {
		Check   string  `json:"check"`
		Ok      bool    `json:"ok"`
		Detail  string  `json:"detail"`
		Seconds float64 `json:"seconds"`
	}{Check: name, Ok: true}
	func() {
		defer func() {
			if caught := recover(); caught != nil {
				known, ok := caught.(failure)
				if !ok {
					panic(caught)
				}
				fmt.Fprintf(os.Stderr, "%s: %s\n%s\n", name, known.text, debug.Stack())
				line.Ok, line.Detail = false, known.text
			}
		}()
		line.Detail = check()
	}()
	line.Seconds = time.Since(started).Round(10 * time.Millisecond).Seconds()
	text, err := json.Marshal(line)
	must(err)
	fmt.Println(string(text))
}

// errorName is the protocol's name of an error; "no error" when there is none.
func errorName(err error) string {
	var known *kerr.Error
	switch {
	case err == nil:
		return "no error"
	case errors.As(err, &known):
		return known.Message
	default:
		return err.Error()
	}
}

// within is what one call gets; it is over when the time limit is.
func within() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(limit, cancel)
	return ctx
}

// settles waits until a question has this answer: changes reach a client's view a little later.
func settles(question func() any, expected any, what string) {
	deadline := time.Now().Add(10 * time.Second)
	for answer := question(); !reflect.DeepEqual(answer, expected); answer = question() {
		if time.Now().After(deadline) {
			fail("%s stays %v, expected %v", what, answer, expected)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

type checks struct {
	broker, prefix string
	base           int64
	admin          *kadm.Client
	full           string
}

// What the client does.

func (c *checks) create(topic string, count int32) error {
	_, err := c.admin.CreateTopic(within(), count, 1, nil, topic)
	return err
}

func (c *checks) partitions(topic string) int {
	metadata, err := c.admin.Metadata(within(), topic)
	must(err)
	return len(metadata.Topics[topic].Partitions)
}

func (c *checks) make(name string, count int32) string {
	topic := c.prefix + "-" + name
	must(c.create(topic, count))
	settles(func() any { return c.partitions(topic) }, int(count), "the size of "+topic)
	return topic
}

// written is a record as it is written, or without its offset as it is read.
type written struct {
	partition  int32
	key, value []byte
	headers    []kgo.RecordHeader
	timestamp  int64
}

// produce writes records with a producer of their own, and waits for them.
func (c *checks) produce(topic string, records []written, options ...kgo.Opt) ([]int64, error) {
	options = append([]kgo.Opt{
		kgo.SeedBrokers(c.broker),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(10_000_000),
		kgo.ProducerLinger(time.Millisecond),
		kgo.AllowAutoTopicCreation(),
	}, options...)
	client, err := kgo.NewClient(options...)
	must(err)
	defer client.Close()
	sent := make([]*kgo.Record, len(records))
	for i, record := range records {
		sent[i] = &kgo.Record{
			Topic:     topic,
			Partition: record.partition,
			Key:       record.key,
			Value:     record.value,
			Headers:   record.headers,
			Timestamp: time.UnixMilli(record.timestamp),
		}
	}
	results := client.ProduceSync(within(), sent...)
	offsets := make([]int64, len(records))
	for i, record := range sent {
		offsets[i] = record.Offset
	}
	return offsets, results.FirstErr()
}

func (c *checks) written(topic string, records []written, options ...kgo.Opt) []int64 {
	offsets, err := c.produce(topic, records, options...)
	must(err)
	return offsets
}

type read struct {
	offset int64
	record written
}

// read reads from an offset; its error is what the broker answers where there is nothing.
func (c *checks) read(topic string, partition int32, start kgo.Offset, count int) ([]read, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(c.broker),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: start}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxWait(500*time.Millisecond),
	)
	must(err)
	defer client.Close()
	var records []read
	for ctx := within(); len(records) < count; {
		fetches := client.PollRecords(ctx, count-len(records))
		if err := fetches.Err(); err != nil {
			return records, err
		}
		for _, r := range fetches.Records() {
			equal(r.Attrs.TimestampType(), int8(0), fmt.Sprintf("the kind of the time of offset %d", r.Offset))
			record := written{r.Partition, r.Key, r.Value, r.Headers, r.Timestamp.UnixMilli()}
			records = append(records, read{r.Offset, record})
		}
	}
	return records, nil
}

func (c *checks) watermarksOf(topic string, partition int32) any {
	start, err := c.admin.ListStartOffsets(within(), topic)
	must(err)
	end, err := c.admin.ListEndOffsets(within(), topic)
	must(err)
	first, _ := start.Lookup(topic, partition)
	last, _ := end.Lookup(topic, partition)
	must(first.Err)
	must(last.Err)
	return [2]int64{first.Offset, last.Offset}
}

func (c *checks) offsetAfter(topic string, partition int32, timestamp int64) kadm.ListedOffset {
	listed, err := c.admin.ListOffsetsAfterMilli(within(), timestamp, topic)
	must(err)
	found, _ := listed.Lookup(topic, partition)
	must(found.Err)
	return found
}

// config is a value and whether it is the default.
type config struct {
	value     string
	isDefault bool
}

func (c *checks) configs(topic string) (map[string]config, error) {
	described, err := c.admin.DescribeTopicConfigs(within(), topic)
	must(err)
	configs := map[string]config{}
	for _, entry := range described[0].Configs {
		configs[entry.Key] = config{entry.MaybeValue(), entry.Source.String() == "DEFAULT_CONFIG"}
	}
	return configs, described[0].Err
}

func (c *checks) config(topic, key string) any {
	configs, err := c.configs(topic)
	must(err)
	return configs[key]
}

func (c *checks) alter(topic, key string, value *string, operation kadm.IncrementalOp) error {
	change := kadm.AlterConfig{Op: operation, Name: key, Value: value}
	altered, err := c.admin.AlterTopicConfigs(within(), []kadm.AlterConfig{change}, topic)
	must(err)
	return altered[0].Err
}

func (c *checks) grow(topic string, total int) error {
	grown, err := c.admin.UpdatePartitions(within(), total, topic)
	must(err)
	return grown[topic].Err
}

func (c *checks) deleteBefore(topic string, offset int64) (int64, error) {
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: topic, Partition: 0, At: offset, LeaderEpoch: -1})
	deleted, err := c.admin.DeleteRecords(within(), offsets)
	must(err)
	return deleted[topic][0].LowWatermark, deleted[topic][0].Err
}

// Records and what must be true of them.

func (c *checks) record(n int, partition int32) written {
	return written{
		partition: partition,
		key:       fmt.Appendf(nil, "key-%d", n),
		value:     []byte(fmt.Sprintf("value %d ", n) + strings.Repeat("grün ", n%20)),
		headers: []kgo.RecordHeader{
			{Key: "client", Value: []byte("a b")},
			{Key: "number", Value: fmt.Append(nil, n)},
		},
		timestamp: c.base + 100*int64(n),
	}
}

func (c *checks) records(count int) []written {
	records := make([]written, count)
	for n := range records {
		records[n] = c.record(n, int32(n%partitions))
	}
	return records
}

func (c *checks) inOnePartition(from, to int) []written {
	var records []written
	for n := from; n < to; n++ {
		records = append(records, c.record(n, 0))
	}
	return records
}

func (c *checks) checkRead(topic string, records []written, first int64) {
	expected := map[int32][]written{}
	for _, record := range records {
		expected[record.partition] = append(expected[record.partition], record)
	}
	for partition, expected := range expected {
		found, err := c.read(topic, partition, kgo.NewOffset().At(first), len(expected))
		must(err)
		equal(len(found), len(expected), fmt.Sprintf("the number of records in partition %d", partition))
		for i, record := range expected {
			offset := first + int64(i)
			equal(found[i], read{offset, record}, fmt.Sprintf("offset %d of partition %d", offset, partition))
		}
	}
}

func (c *checks) checkOffsets(offsets []int64, records []written, first ...int64) {
	following := append(first, make([]int64, partitions)...)
	for i, record := range records {
		equal(offsets[i], following[record.partition], "an acknowledged offset")
		following[record.partition]++
	}
}

// The checks.

func (c *checks) describeCluster() string {
	metadata, err := c.admin.BrokerMetadata(within())
	must(err)
	equal(len(metadata.Brokers), 1, "the number of nodes")
	node := metadata.Brokers[0]
	equal(fmt.Sprintf("%s:%d", node.Host, node.Port), c.broker, "the node's address")
	equal(metadata.Controller, node.NodeID, "the controller")
	directories, err := c.admin.DescribeBrokerLogDirs(within(), node.NodeID, nil)
	must(err)
	equal(len(directories), 1, "the number of data directories")
	return "Metadata, DescribeLogDirs"
}

func (c *checks) createTopic() string {
	topic := c.make("created", partitions)
	equal(errorName(c.create(topic, partitions)), "TOPIC_ALREADY_EXISTS", "the error of creating it again")
	return ""
}

func (c *checks) roundTrip(codec string) string {
	topic := c.make(codec, partitions)
	records := c.records(recordCount)
	started := time.Now()
	offsets := c.written(topic, records, kgo.ProducerBatchCompression(codecs[codec]))
	writing := time.Since(started)
	c.checkOffsets(offsets, records)
	c.checkRead(topic, records, 0)
	c.full = topic
	return fmt.Sprintf("written in %.2f s, read in %.2f s", writing.Seconds(), (time.Since(started) - writing).Seconds())
}

func (c *checks) idempotence() string {
	topic := c.make("idempotent", partitions)
	records := c.records(1000)
	for earlier := range int64(3) {
		// Each producer gets an id of its own and begins its sequence anew.
		c.checkOffsets(c.written(topic, records), records, 334*earlier, 333*earlier, 333*earlier)
	}
	equal(c.watermarksOf(topic, 0), [2]int64{0, 1002}, "the watermarks after three producers")
	topics := kadm.TopicsSet{}
	topics.Add(topic, 0)
	described, err := c.admin.DescribeProducers(within(), topics)
	must(err)
	equal(len(described[topic].Partitions[0].ActiveProducers), 3, "the number of producers that DescribeProducers knows")
	return ""
}

func (c *checks) acks() string {
	topic := c.make("acks", partitions)
	c.written(topic, c.inOnePartition(0, 50), kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
	settles(func() any { return c.watermarksOf(topic, 0) }, [2]int64{0, 50}, "what acks=0 wrote")
	records := c.inOnePartition(50, 100)
	offsets := c.written(topic, records, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	c.checkOffsets(offsets, records, 50)
	c.checkRead(topic, c.inOnePartition(0, 100), 0)
	return ""
}

func (c *checks) nullAndEmpty() string {
	topic := c.make("nulls", 1)
	text, noText, empty := []byte("text"), []byte{0xc3, 0x28}, []byte{}
	headers := []kgo.RecordHeader{
		{Key: "null"},
		{Key: "empty", Value: empty},
		{Key: "", Value: text},
		{Key: "grün", Value: noText},
		{Key: "null", Value: text},
	}
	records := []written{
		{0, nil, text, nil, c.base},
		{0, empty, text, nil, c.base},
		{0, text, nil, nil, c.base},
		{0, text, empty, nil, c.base},
		{0, []byte{0, 255, 254}, noText, nil, c.base},
		{0, text, empty, headers, c.base},
		{0, nil, nil, nil, c.base},
	}
	c.checkOffsets(c.written(topic, records), records)
	c.checkRead(topic, records, 0)
	return ""
}

func (c *checks) ownPartitions() string {
	for partition := range partitions {
		found, err := c.read(c.full, int32(partition), kgo.NewOffset().AtStart(), 1)
		must(err)
		what := fmt.Sprintf("the first record of partition %d", partition)
		equal(found[0], read{0, c.record(partition, int32(partition))}, what)
	}
	return ""
}

func (c *checks) seekByTimestamp() string {
	// Record n has the time base + 100 n; partition 1 holds 1, 4, 7 ...
	middle := c.base + 400 + 300*1234
	equal(c.offsetAfter(c.full, 1, 0).Offset, int64(0), "the offset of time 0")
	equal(c.offsetAfter(c.full, 1, c.base+100).Offset, int64(0), "the offset of the first time")
	equal(c.offsetAfter(c.full, 1, c.base+101).Offset, int64(1), "the offset just after it")
	equal(c.offsetAfter(c.full, 1, middle).Offset, int64(1235), "the offset of a time in the middle")
	equal(c.offsetAfter(c.full, 1, middle).Timestamp, middle, "the time that is answered with it")
	// kadm answers with the end where the broker says that there is none; the broker names no time.
	late := c.offsetAfter(c.full, 1, c.base+100*recordCount)
	equal([2]int64{late.Offset, late.Timestamp}, [2]int64{3333, -1}, "the answer for a time that has not come")
	found, err := c.read(c.full, 1, kgo.NewOffset().AfterMilli(middle), 1)
	must(err)
	equal(found[0], read{1235, c.record(3*1235+1, 1)}, "the record there")
	largest, err := c.admin.ListMaxTimestampOffsets(within(), c.full)
	must(err)
	latest, _ := largest.Lookup(c.full, 1)
	equal(latest.Offset, int64(3332), "the offset of the largest time")
	return ""
}

func (c *checks) seekByOffset() string {
	for _, offset := range []int{0, 1, 1000, 2345, 3332} {
		found, err := c.read(c.full, 2, kgo.NewOffset().At(int64(offset)), 1)
		must(err)
		equal(found[0], read{int64(offset), c.record(3*offset+2, 2)}, fmt.Sprintf("what is at %d", offset))
	}
	_, err := c.read(c.full, 2, kgo.NewOffset().At(99_999), 1)
	equal(errorName(err), "OFFSET_OUT_OF_RANGE", "the error of reading beyond the end")
	return ""
}

func (c *checks) watermarks() string {
	for partition, count := range []int64{3334, 3333, 3333} {
		what := fmt.Sprintf("the watermarks of partition %d", partition)
		equal(c.watermarksOf(c.full, int32(partition)), [2]int64{0, count}, what)
	}
	equal(c.watermarksOf(c.make("empty", 1), 0), [2]int64{0, 0}, "the watermarks of an empty partition")
	return ""
}

func (c *checks) readConfigs() string {
	configs, err := c.configs(c.make("configs", 1))
	must(err)
	for key, value := range map[string]string{
		"cleanup.policy":         "delete",
		"compression.type":       "producer",
		"max.message.bytes":      "1048588",
		"message.timestamp.type": "CreateTime",
		"retention.ms":           "604800000",
		"segment.bytes":          "1073741824",
	} {
		equal(configs[key], config{value, true}, key)
	}
	return fmt.Sprintf("%d keys", len(configs))
}

func (c *checks) alterConfigs() string {
	topic := c.make("altered", 1)
	is := func(key, value string, isDefault bool) {
		settles(func() any { return c.config(topic, key) }, config{value, isDefault}, key)
	}
	must(c.alter(topic, "retention.ms", kadm.StringPtr("86400000"), kadm.SetConfig))
	is("retention.ms", "86400000", false)
	must(c.alter(topic, "cleanup.policy", kadm.StringPtr("compact"), kadm.AppendConfig))
	is("cleanup.policy", "delete,compact", false)
	must(c.alter(topic, "cleanup.policy", kadm.StringPtr("delete"), kadm.SubtractConfig))
	is("cleanup.policy", "compact", false)
	must(c.alter(topic, "retention.ms", nil, kadm.DeleteConfig))
	is("retention.ms", "604800000", true)
	err := c.alter(topic, "retention.ms", kadm.StringPtr("soon"), kadm.SetConfig)
	equal(errorName(err), "INVALID_CONFIG", "the error of a value of the wrong kind")
	err = c.alter(topic, "no.such.key", kadm.StringPtr("1"), kadm.SetConfig)
	equal(errorName(err), "INVALID_CONFIG", "the error of an unknown key")
	return ""
}

func (c *checks) addPartitions() string {
	topic := c.make("grown", partitions)
	must(c.grow(topic, 5))
	settles(func() any { return c.partitions(topic) }, 5, "the number of partitions")
	records := []written{c.record(1, 4)}
	equal(c.written(topic, records), []int64{0}, "the offset in the new partition")
	c.checkRead(topic, records, 0)
	equal(errorName(c.grow(topic, 2)), "INVALID_PARTITIONS", "the error of taking partitions away")
	return ""
}

func (c *checks) deleteRecords() string {
	topic := c.make("trimmed", 1)
	c.written(topic, c.inOnePartition(0, 1000))
	start, err := c.deleteBefore(topic, 400)
	must(err)
	equal(start, int64(400), "the new log start")
	equal(c.watermarksOf(topic, 0), [2]int64{400, 1000}, "the watermarks")
	c.checkRead(topic, c.inOnePartition(400, 1000), 400)
	found, err := c.read(topic, 0, kgo.NewOffset().AtStart(), 1)
	must(err)
	equal(found[0].offset, int64(400), "the first offset")
	_, err = c.read(topic, 0, kgo.NewOffset().At(399), 1)
	equal(errorName(err), "OFFSET_OUT_OF_RANGE", "the error of reading below the log start")
	_, err = c.deleteBefore(topic, 1001)
	equal(errorName(err), "OFFSET_OUT_OF_RANGE", "the error of deleting beyond the end")
	return ""
}

func (c *checks) recreateTopic() string {
	topic := c.make("again", partitions)
	c.written(topic, c.records(30))
	deleted, err := c.admin.DeleteTopic(within(), topic)
	must(err)
	must(deleted.Err)
	settles(func() any { return c.partitions(topic) }, 0, "the number of partitions after the deletion")
	must(c.create(topic, 1))
	settles(func() any { return c.partitions(topic) }, 1, "the number of partitions of the new one")
	equal(c.watermarksOf(topic, 0), [2]int64{0, 0}, "the watermarks of the new one")
	records := []written{c.record(7, 0)}
	equal(c.written(topic, records), []int64{0}, "the first offset of the new one")
	c.checkRead(topic, records, 0)
	return ""
}

func (c *checks) autoCreation() string {
	topic, records := c.prefix+"-unannounced", []written{c.record(1, 0)}
	equal(c.written(topic, records), []int64{0}, "the first offset")
	c.checkRead(topic, records, 0)
	return ""
}

func (c *checks) recordTooLarge() string {
	topic := c.make("large", 1)
	large := written{value: make([]byte, 2<<20), timestamp: c.base}
	_, err := c.produce(topic, []written{large}, kgo.ProducerBatchCompression(kgo.NoCompression()))
	equal(errorName(err), "MESSAGE_TOO_LARGE", "the error of a large record")
	records := []written{c.record(2, 0)}
	equal(c.written(topic, records), []int64{0}, "the offset of the next record")
	c.checkRead(topic, records, 0)
	return ""
}

func (c *checks) unknownTopic() string {
	topic := c.prefix + "-nowhere"
	metadata, err := c.admin.Metadata(within(), topic)
	must(err)
	equal(errorName(metadata.Topics[topic].Err), unknown, "the error of Metadata")
	_, err = c.admin.DeleteTopic(within(), topic)
	equal(errorName(err), unknown, "the error of DeleteTopics")
	_, err = c.configs(topic)
	equal(errorName(err), unknown, "the error of DescribeConfigs")
	equal(errorName(c.grow(topic, 5)), unknown, "the error of CreatePartitions")
	equal(c.partitions(topic), 0, "the number of partitions")
	return "Metadata, DeleteTopics, DescribeConfigs, CreatePartitions"
}

func (c *checks) invalidTopic() string {
	for _, name := range []string{"a b", "..", strings.Repeat("a", 250), "grün"} {
		equal(errorName(c.create(name, 1)), "INVALID_TOPIC_EXCEPTION", "the error of the name "+name)
	}
	return ""
}

func (c *checks) transactionsRefused() string {
	started := time.Now()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.broker), kgo.TransactionalID("a transaction"))
	must(err)
	defer client.Close()
	// Where it finds no coordinator, it goes on without a producer id; the broker must refuse what comes.
	err = client.BeginTransaction()
	if err == nil {
		err = client.ProduceSync(within(), &kgo.Record{Topic: c.full, Value: []byte("in a transaction")}).FirstErr()
	}
	seconds := time.Since(started).Seconds()
	if err == nil || errors.Is(err, context.Canceled) {
		fail("not refused but %v after %.1f s", err, seconds)
	}
	for partition, count := range []int64{3334, 3333, 3333} {
		what := fmt.Sprintf("the watermarks of partition %d", partition)
		equal(c.watermarksOf(c.full, int32(partition)), [2]int64{0, count}, what)
	}
	return fmt.Sprintf("%v, after %.1f s", err, seconds)
}
