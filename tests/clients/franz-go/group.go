package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	sessionTimeout    = 6 * time.Second
	heartbeatInterval = 500 * time.Millisecond
	commitLimit       = 10 * time.Second
	pollLimit         = 200 * time.Millisecond
	pollRecords       = 500
)

// place is a topic's partition; as JSON it is ["topic", 0].
type place struct {
	topic     string
	partition int32
}

func (p place) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{p.topic, p.partition})
}

// member is the member of a group of ../README.md.
//
//	checks group HOST:PORT GROUP TOPIC PROTOCOL [--instance ID] [--regex] [--commit-every N]
type member struct {
	client      *kgo.Client
	commitEvery int
	uncommitted int
	// read has the last record of each partition of which some are not committed.
	read map[place]*kgo.Record

	// held is what it is assigned; the callbacks change it, on another goroutine.
	lock sync.Mutex
	held map[place]bool
}

func runGroup(arguments []string) {
	m := &member{commitEvery: 1, read: map[place]*kgo.Record{}, held: map[place]bool{}}
	options := m.options(arguments)
	client, err := kgo.NewClient(options...)
	if err != nil {
		giveUp(err)
	}
	m.client = client
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() && lines.Text() != "close" {
		}
		cancel()
	}()
	for ctx.Err() == nil {
		m.poll(ctx)
		if m.uncommitted >= m.commitEvery {
			m.commit()
		}
		// From here on it may lose partitions.
		m.client.AllowRebalance()
	}
	m.commit()
	m.client.CloseAllowingRebalance()
	emit(map[string]any{"event": "closed"})
}

func (m *member) options(arguments []string) []kgo.Opt {
	broker, group, topic, protocol := arguments[0], arguments[1], arguments[2], arguments[3]
	options := []kgo.Opt{
		kgo.ClientID("group"),
		kgo.SeedBrokers(broker),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(sessionTimeout),
		kgo.RebalanceTimeout(sessionTimeout),
		kgo.HeartbeatInterval(heartbeatInterval),
		kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.MetadataMaxAge(time.Second),
		kgo.FetchMaxWait(heartbeatInterval),
		kgo.OnPartitionsAssigned(m.assigned),
		kgo.OnPartitionsRevoked(m.revoked),
		kgo.OnPartitionsLost(m.lost),
	}
	switch protocol {
	case "cooperative":
		options = append(options, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	case "consumer":
		options = append(options, kgo.Balancers(kgo.RangeBalancer()), kgo.ServerSideBalancer())
	default:
		options = append(options, kgo.Balancers(kgo.RangeBalancer()))
	}
	for rest := arguments[4:]; len(rest) > 0; rest = rest[1:] {
		switch rest[0] {
		case "--regex":
			options = append(options, kgo.ConsumeRegex())
		case "--instance":
			rest = rest[1:]
			options = append(options, kgo.InstanceID(rest[0]))
		case "--commit-every":
			rest = rest[1:]
			count, err := strconv.Atoi(rest[0])
			must(err)
			m.commitEvery = count
		default:
			fail("unknown argument %s", rest[0])
		}
	}
	return options
}

// poll takes what has come, and tells of it.
func (m *member) poll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, pollLimit)
	defer cancel()
	fetches := m.client.PollRecords(ctx, pollRecords)
	for _, problem := range fetches.Errors() {
		// It deals with brokers that are away by itself.
		if errors.Is(problem.Err, kerr.FencedInstanceID) || errors.Is(problem.Err, kgo.ErrClientClosed) {
			giveUp(problem.Err)
		}
	}
	fetches.EachPartition(func(partition kgo.FetchTopicPartition) {
		records := partition.Records
		for from := 0; from < len(records); {
			to := from + 1
			for to < len(records) && records[to].Offset == records[to-1].Offset+1 {
				to++
			}
			emit(map[string]any{
				"event": "records", "topic": partition.Topic, "partition": partition.Partition,
				"from": records[from].Offset, "to": records[to-1].Offset + 1,
			})
			from = to
		}
		if count := len(records); count > 0 {
			m.read[place{partition.Topic, partition.Partition}] = records[count-1]
			m.uncommitted += count
		}
	})
}

// commit commits what was read; where that fails, the next commit takes it along.
func (m *member) commit() {
	if len(m.read) == 0 {
		return
	}
	last := make([]*kgo.Record, 0, len(m.read))
	for _, record := range m.read {
		last = append(last, record)
	}
	ctx, cancel := context.WithTimeout(context.Background(), commitLimit)
	defer cancel()
	if err := m.client.CommitRecords(ctx, last...); err != nil {
		return
	}
	for _, record := range last {
		emit(map[string]any{
			"event": "committed", "topic": record.Topic, "partition": record.Partition, "offset": record.Offset + 1,
		})
	}
	m.read = map[place]*kgo.Record{}
	m.uncommitted = 0
}

func (m *member) assigned(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	m.change(func() {
		for _, place := range places(partitions) {
			m.held[place] = true
		}
	})
}

// revoked runs while nothing is polled; also at the end of a generation that takes nothing away.
func (m *member) revoked(ctx context.Context, client *kgo.Client, partitions map[string][]int32) {
	if len(partitions) > 0 {
		m.commit()
		m.lost(ctx, client, partitions)
	}
}

func (m *member) lost(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	if len(partitions) == 0 {
		return
	}
	m.change(func() {
		for _, place := range places(partitions) {
			delete(m.held, place)
			delete(m.read, place)
		}
	})
}

// change changes what is held, and tells of it.
func (m *member) change(apply func()) {
	m.lock.Lock()
	defer m.lock.Unlock()
	apply()
	held := make([]place, 0, len(m.held))
	for place := range m.held {
		held = append(held, place)
	}
	sort.Slice(held, func(i, j int) bool {
		return fmt.Sprint(held[i]) < fmt.Sprint(held[j])
	})
	emit(map[string]any{"event": "assigned", "partitions": held})
}

func places(partitions map[string][]int32) []place {
	var all []place
	for topic, numbers := range partitions {
		for _, partition := range numbers {
			all = append(all, place{topic, partition})
		}
	}
	return all
}

func emit(event map[string]any) {
	line, err := json.Marshal(event)
	must(err)
	fmt.Println(string(line))
}

func giveUp(err error) {
	emit(map[string]any{"event": "error", "detail": err.Error()})
	os.Exit(1)
}
