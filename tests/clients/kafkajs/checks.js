// The checks of ../README.md with kafkajs.
//
//   node checks.js HOST:PORT PREFIX
//
// With `group` it is the member of a group in group.js instead.
//
// Its consumer always joins a group. What was written is read with the same client's own requests and
// decoders below that, so that a check of reading says what they can do and nothing about the consumer.

const assert = require('node:assert/strict')
const { CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = require('kafkajs')
const codecs = require('./codecs')

const RECORDS = 10_000
const PARTITIONS = 3
const LIMIT_MS = 30_000
const UNKNOWN = 'UNKNOWN_TOPIC_OR_PARTITION'
const CODECS = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
}

const [, , broker, prefix] = process.argv
const base = Math.floor(Date.now() / 1000) * 1000 - 3_600_000
const kafka = new Kafka({ clientId: 'checks', brokers: [broker], logLevel: logLevel.NOTHING })
const admin = kafka.admin({ retry: { retries: 2 } })
const cluster = makeCluster()
let full

/** What producers, consumers and admin clients of kafkajs stand on; it has no public name. */
function makeCluster() {
  const symbol = Object.getOwnPropertySymbols(kafka).find((s) => s.description.endsWith('createCluster'))
  return kafka[symbol]({ metadataMaxAge: 300_000, allowAutoTopicCreation: false, isolationLevel: 0 })
}

class NotAvailable extends Error {}

async function report(name, check) {
  const started = Date.now()
  let ok = true
  let detail
  try {
    detail = (await check()) ?? ''
  } catch (failure) {
    ok = failure instanceof NotAvailable ? 'n/a' : false
    detail = failure instanceof NotAvailable ? failure.message : `${failure.name}: ${failure.message}`
    if (!ok) console.error(failure)
  }
  const seconds = (Date.now() - started) / 1000
  console.log(JSON.stringify({ check: name, ok, detail, seconds }))
}

function equal(actual, expected, what) {
  assert.deepEqual(actual, expected, `${what} is ${show(actual)}, expected ${show(expected)}`)
}

function show(value) {
  return JSON.stringify(value)?.slice(0, 500)
}

/** The protocol's name of the error with which a promise ends. */
async function errorOf(promise) {
  try {
    await promise
    return 'no error'
  } catch (error) {
    // It is wrapped, in different ways.
    let inner = error
    while (inner.type === undefined) {
      const next = inner.errors?.[0] ?? inner.partitions?.[0]?.error ?? inner.cause
      if (next === undefined) return `${inner.name}: ${inner.message}`
      inner = next
    }
    return inner.type
  }
}

async function refused(promise, name, what) {
  equal(await errorOf(promise), name, `the error of ${what}`)
}

/** Waits until a question has this answer: changes reach a client's view a little later. */
async function settles(question, expected, what) {
  const deadline = Date.now() + 10_000
  for (;;) {
    const answer = await question()
    if (show(answer) === show(expected)) return
    if (Date.now() > deadline) equal(answer, expected, what)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

// What the client does.

async function create(topic, partitions) {
  const topics = [{ topic, numPartitions: partitions, replicationFactor: 1 }]
  return admin.createTopics({ topics, waitForLeaders: false })
}

async function partitions(topic) {
  const node = await cluster.findControllerBroker()
  try {
    const { topicMetadata } = await node.metadata([topic])
    return topicMetadata[0].partitionMetadata.filter(({ leader }) => leader >= 0).length
  } catch (error) {
    if (error.type === UNKNOWN) return 0
    throw error
  }
}

async function make(name, count = PARTITIONS) {
  const topic = `${prefix}-${name}`
  await create(topic, count)
  await settles(() => partitions(topic), count, 'its size')
  return topic
}

/** Writes records, at most 1,000 at a time, and answers with their offsets. */
async function produce(topic, records, { codec = 'none', idempotent = false, acks = -1 } = {}) {
  const producer = kafka.producer({ idempotent, createPartitioner: () => ({ message }) => message.partition })
  await producer.connect()
  const offsets = []
  try {
    for (let first = 0; first < records.length; first += 1000) {
      const messages = records.slice(first, first + 1000)
      const compression = CODECS[codec]
      const sent = (await producer.send({ topic, messages, acks, compression, timeout: LIMIT_MS })) ?? []
      const next = Object.fromEntries(sent.map(({ partition, baseOffset }) => [partition, Number(baseOffset)]))
      if (acks !== 0) messages.forEach(({ partition }) => offsets.push(next[partition]++))
    }
  } finally {
    await producer.disconnect()
  }
  return offsets
}

/** The next records from an offset, in the form in which they are written. */
async function read(topic, partition, start, count) {
  const node = await cluster.findControllerBroker()
  const records = []
  const deadline = Date.now() + LIMIT_MS
  for (let offset = start; records.length < count; ) {
    assert(Date.now() < deadline, `only ${records.length} of ${count} records came`)
    const fetched = await node.fetch({
      maxWaitTime: 500,
      minBytes: 1,
      maxBytes: 10 << 20,
      isolationLevel: 0,
      topics: [{ topic, partitions: [{ partition, fetchOffset: String(offset), maxBytes: 1 << 20 }] }],
    })
    for (const message of fetched.responses[0].partitions[0].messages) {
      // A batch comes whole, also from its middle.
      if (Number(message.offset) < offset) continue
      assert(!message.batchContext.timestampType, `the time of offset ${message.offset} is the log's`)
      records.push(message)
      offset = Number(message.offset) + 1
    }
  }
  return records.slice(0, count).map(({ offset, key, value, headers, timestamp }) => ({
    offset: Number(offset),
    record: { partition, key, value, headers, timestamp },
  }))
}

async function watermarksOf(topic, partition) {
  const offsets = await admin.fetchTopicOffsets(topic)
  const { low, high } = offsets.find((one) => one.partition === partition)
  return [Number(low), Number(high)]
}

async function offsetFor(topic, partition, timestamp) {
  const offsets = await admin.fetchTopicOffsetsByTimestamp(topic, timestamp)
  return Number(offsets.find((one) => one.partition === partition).offset)
}

async function configs(topic) {
  const resources = [{ type: ConfigResourceTypes.TOPIC, name: topic }]
  const described = await admin.describeConfigs({ resources, includeSynonyms: false })
  const entries = described.resources[0].configEntries
  // The source of a default has the number 5.
  const plain = entries.map(({ configName, configValue, configSource }) => [configName, [configValue, configSource === 5]])
  return Object.fromEntries(plain)
}

/** Replaces everything that is set on a topic. */
async function alter(topic, entries) {
  const configEntries = Object.entries(entries).map(([name, value]) => ({ name, value }))
  const resources = [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries }]
  return admin.alterConfigs({ validateOnly: false, resources })
}

async function grow(topic, count) {
  return admin.createPartitions({ topicPartitions: [{ topic, count }] })
}

// Records and what must be true of them.

function record(n, partition = 0) {
  return {
    partition,
    key: Buffer.from(`key-${n}`),
    value: Buffer.from(`value ${n} ${'grün '.repeat(n % 20)}`),
    headers: { client: Buffer.from('a b'), number: Buffer.from(String(n)) },
    timestamp: String(base + 100 * n),
  }
}

const records = (count) => Array.from({ length: count }, (_, n) => record(n, n % PARTITIONS))
const inOnePartition = (from, to) => Array.from({ length: to - from }, (_, n) => record(from + n))

async function checkRead(topic, written, first = 0) {
  for (const partition of new Set(written.map((one) => one.partition))) {
    const expected = written.filter((one) => one.partition === partition)
    const found = await read(topic, partition, first, expected.length)
    expected.forEach((record, index) => {
      const offset = first + index
      equal(found[index], { offset, record }, `offset ${offset} of partition ${partition}`)
    })
  }
}

function checkOffsets(offsets, written, first = [0, 0, 0]) {
  const following = [...first]
  equal(offsets, written.map(({ partition }) => following[partition]++), 'the acknowledged offsets')
}

// The checks.

const checks = {
  async 'describe-cluster'() {
    const { brokers, controller } = await admin.describeCluster()
    equal(brokers.map(({ host, port }) => `${host}:${port}`), [broker], 'the addresses of the nodes')
    equal(controller, brokers[0].nodeId, 'the controller')
    return 'Metadata'
  },

  async 'create-topic'() {
    const topic = await make('created')
    // It says false where others give the error.
    equal(await create(topic, PARTITIONS), false, 'whether it was created again')
  },

  ...Object.fromEntries(Object.keys(CODECS).map((codec) => [`round-trip-${codec}`, () => roundTrip(codec)])),

  async idempotence() {
    const topic = await make('idempotent')
    const written = records(1000)
    for (const earlier of [0, 1, 2]) {
      // Each producer gets an id of its own and begins its sequence anew.
      const offsets = await produce(topic, written, { idempotent: true })
      checkOffsets(offsets, written, [334 * earlier, 333 * earlier, 333 * earlier])
    }
    equal(await watermarksOf(topic, 0), [0, 1002], 'the watermarks after three producers')
  },

  async acks() {
    const topic = await make('acks')
    await produce(topic, inOnePartition(0, 50), { acks: 0 })
    await settles(() => watermarksOf(topic, 0), [0, 50], 'what acks=0 wrote')
    const offsets = await produce(topic, inOnePartition(50, 100), { acks: 1 })
    checkOffsets(offsets, inOnePartition(50, 100), [50, 0, 0])
    await checkRead(topic, inOnePartition(0, 100))
  },

  async 'null-and-empty'() {
    const topic = await make('nulls', 1)
    const written = [
      [null, 'no key', {}],
      ['', 'empty key', {}],
      ['no value', null, {}],
      ['empty value', '', {}],
      [Buffer.from([0, 255, 254]), Buffer.from([0xc3, 0x28]), {}],
      ['headers', '', { empty: Buffer.alloc(0), grün: Buffer.from([255]), twice: [Buffer.from('1'), Buffer.from('2')] }],
      [null, null, {}],
    ].map(([key, value, headers]) => ({
      partition: 0,
      key: key === null ? null : Buffer.from(key),
      value: value === null ? null : Buffer.from(value),
      headers,
      timestamp: String(base),
    }))
    checkOffsets(await produce(topic, written), written)
    await checkRead(topic, written)
  },

  async 'own-partitions'() {
    throw new NotAvailable('its consumer always joins a group; what it wrote is read with its own requests below that')
  },

  async 'seek-by-timestamp'() {
    // Record n has the time base + 100 n; partition 1 holds 1, 4, 7 ...
    const middle = base + 400 + 300 * 1234
    equal(await offsetFor(full, 1, 0), 0, 'the offset of time 0')
    equal(await offsetFor(full, 1, base + 100), 0, 'the offset of the first time')
    equal(await offsetFor(full, 1, base + 101), 1, 'the offset just after it')
    equal(await offsetFor(full, 1, middle), 1235, 'the offset of a time in the middle')
    // It answers with the end where the broker says that there is none.
    equal(await offsetFor(full, 1, base + 100 * RECORDS), 3333, 'the offset of a time that has not come')
    equal(await read(full, 1, 1235, 1), [{ offset: 1235, record: record(3 * 1235 + 1, 1) }], 'the record there')
  },

  async 'seek-by-offset'() {
    for (const offset of [0, 1, 1000, 2345, 3332]) {
      equal(await read(full, 2, offset, 1), [{ offset, record: record(3 * offset + 2, 2) }], 'what is there')
    }
    await refused(read(full, 2, 99_999, 1), 'OFFSET_OUT_OF_RANGE', 'reading beyond the end')
  },

  async watermarks() {
    for (const [partition, count] of [3334, 3333, 3333].entries()) {
      equal(await watermarksOf(full, partition), [0, count], `the watermarks of partition ${partition}`)
    }
    equal(await watermarksOf(await make('empty', 1), 0), [0, 0], 'the watermarks of an empty partition')
  },

  async 'read-configs'() {
    const found = await configs(await make('configs', 1))
    const expected = {
      'cleanup.policy': 'delete',
      'compression.type': 'producer',
      'max.message.bytes': '1048588',
      'message.timestamp.type': 'CreateTime',
      'retention.ms': '604800000',
      'segment.bytes': '1073741824',
    }
    for (const [key, value] of Object.entries(expected)) equal(found[key], [value, true], key)
    return `${Object.keys(found).length} keys`
  },

  async 'alter-configs'() {
    const topic = await make('altered', 1)
    const is = (key, value, isDefault) => settles(async () => (await configs(topic))[key], [value, isDefault], key)
    await alter(topic, { 'retention.ms': '86400000', 'cleanup.policy': 'compact' })
    await is('retention.ms', '86400000', false)
    await is('cleanup.policy', 'compact', false)
    await alter(topic, { 'cleanup.policy': 'compact' })
    await is('retention.ms', '604800000', true)
    await is('cleanup.policy', 'compact', false)
    await refused(alter(topic, { 'retention.ms': 'soon' }), 'INVALID_CONFIG', 'a value of the wrong kind')
    await refused(alter(topic, { 'no.such.key': '1' }), 'INVALID_CONFIG', 'an unknown key')
    return 'AlterConfigs, which replaces all'
  },

  async 'add-partitions'() {
    const topic = await make('grown')
    await grow(topic, 5)
    await settles(() => partitions(topic), 5, 'the number of partitions')
    equal(await produce(topic, [record(1, 4)]), [0], 'the offset in the new partition')
    await checkRead(topic, [record(1, 4)])
    await refused(grow(topic, 2), 'INVALID_PARTITIONS', 'taking partitions away')
  },

  async 'delete-records'() {
    const topic = await make('trimmed', 1)
    const deleteBefore = (offset) =>
      admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: String(offset) }] })
    await produce(topic, inOnePartition(0, 1000))
    // It finds no leader of a topic that it was not asked about before.
    equal(await watermarksOf(topic, 0), [0, 1000], 'the watermarks')
    await deleteBefore(400)
    equal(await watermarksOf(topic, 0), [400, 1000], 'the watermarks')
    await checkRead(topic, inOnePartition(400, 1000), 400)
    await refused(read(topic, 0, 399, 1), 'OFFSET_OUT_OF_RANGE', 'reading below the log start')
    await refused(deleteBefore(1001), 'OFFSET_OUT_OF_RANGE', 'deleting beyond the end')
  },

  async 'recreate-topic'() {
    const topic = await make('again')
    await produce(topic, records(30))
    await admin.deleteTopics({ topics: [topic] })
    await settles(() => partitions(topic), 0, 'the number of partitions after the deletion')
    await create(topic, 1)
    await settles(() => partitions(topic), 1, 'the number of partitions of the new one')
    equal(await watermarksOf(topic, 0), [0, 0], 'the watermarks of the new one')
    equal(await produce(topic, [record(7)]), [0], 'the first offset of the new one')
    await checkRead(topic, [record(7)])
  },

  async 'auto-creation'() {
    const topic = `${prefix}-unannounced`
    equal(await produce(topic, [record(1)]), [0], 'the first offset')
    await checkRead(topic, [record(1)])
  },

  async 'record-too-large'() {
    const topic = await make('large', 1)
    const large = { ...record(1), value: Buffer.alloc(2 << 20) }
    await refused(produce(topic, [large]), 'MESSAGE_TOO_LARGE', 'a large record')
    equal(await produce(topic, [record(2)]), [0], 'the offset of the next record')
    await checkRead(topic, [record(2)])
  },

  async 'unknown-topic'() {
    const topic = `${prefix}-nowhere`
    await refused(admin.fetchTopicMetadata({ topics: [topic] }), UNKNOWN, 'Metadata')
    await refused(admin.deleteTopics({ topics: [topic] }), UNKNOWN, 'DeleteTopics')
    await refused(configs(topic), UNKNOWN, 'DescribeConfigs')
    await refused(grow(topic, 5), UNKNOWN, 'CreatePartitions')
    equal(await partitions(topic), 0, 'the number of partitions')
    return 'Metadata, DeleteTopics, DescribeConfigs, CreatePartitions'
  },

  async 'invalid-topic'() {
    for (const name of ['a b', '..', 'a'.repeat(250), 'grün']) {
      await refused(create(name, 1), 'INVALID_TOPIC_EXCEPTION', `the name ${name}`)
    }
  },

  async 'transactions-refused'() {
    const started = Date.now()
    const producer = kafka.producer({ transactionalId: 'a transaction', idempotent: true, maxInFlightRequests: 1 })
    await producer.connect()
    try {
      await producer.transaction()
    } catch (error) {
      return `${error.name}: ${error.message}, after ${(Date.now() - started) / 1000} s`
    } finally {
      await producer.disconnect()
    }
    throw new Error('a transaction began')
  },
}

async function roundTrip(codec) {
  const topic = await make(codec)
  const written = records(RECORDS)
  const started = Date.now()
  checkOffsets(await produce(topic, written, { codec, idempotent: true }), written)
  const writing = Date.now() - started
  await checkRead(topic, written)
  full = topic
  return `written in ${writing / 1000} s, read in ${(Date.now() - started - writing) / 1000} s, below its consumer`
}

async function main() {
  console.log(JSON.stringify({ client: `kafkajs ${require('kafkajs/package.json').version}` }))
  await codecs.register()
  await Promise.all([admin.connect(), cluster.connect()])
  await cluster.refreshMetadata()
  for (const [name, check] of Object.entries(checks)) await report(name, check)
  await Promise.all([admin.disconnect(), cluster.disconnect()])
}

if (broker === 'group') require('./group')
else main()
