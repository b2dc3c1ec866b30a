// The member of a group of ../README.md with kafkajs.
//
//   node checks.js group HOST:PORT GROUP TOPIC PROTOCOL [--instance ID] [--regex] [--commit-every N]

const readline = require('node:readline')
const { Kafka, logLevel } = require('kafkajs')
const codecs = require('./codecs')

const SESSION_TIMEOUT_MS = 6_000
const HEARTBEAT_MS = 500
const METADATA_MS = 1_000

const options = parse(process.argv.slice(3))
const kafka = new Kafka({
  clientId: 'group',
  brokers: [options.broker],
  logLevel: logLevel.NOTHING,
  retry: { initialRetryTime: 100, maxRetryTime: 1_000 },
})
const consumer = kafka.consumer({
  groupId: options.group,
  sessionTimeout: SESSION_TIMEOUT_MS,
  heartbeatInterval: HEARTBEAT_MS,
  rebalanceTimeout: SESSION_TIMEOUT_MS,
  metadataMaxAge: METADATA_MS,
  maxWaitTimeInMs: HEARTBEAT_MS,
  allowAutoTopicCreation: false,
})

/** What was read and not yet committed: for each partition its topic, number and next offset. */
const read = new Map()
let uncommitted = 0
let closing = false

function parse([broker, group, topic, protocol, ...rest]) {
  const options = { broker, group, topic, protocol, regex: false, commitEvery: 1 }
  for (let index = 0; index < rest.length; index++) {
    if (rest[index] === '--regex') options.regex = true
    else if (rest[index] === '--instance') options.instance = rest[++index]
    else if (rest[index] === '--commit-every') options.commitEvery = Number(rest[++index])
    else throw new Error(`unknown argument ${rest[index]}`)
  }
  return options
}

/** Why the client cannot do what is asked; undefined when it can. */
function impossible() {
  if (options.protocol !== 'eager') return 'it knows the eager protocol only'
  if (options.instance !== undefined) return 'it has no static members'
  if (options.regex) return 'it looks for the topics of a pattern once, when it subscribes'
}

function print(event) {
  process.stdout.write(`${JSON.stringify(event)}\n`)
}

function assigned(topics) {
  const partitions = Object.entries(topics).flatMap(([topic, numbers]) => numbers.map((number) => [topic, number]))
  print({ event: 'assigned', partitions })
}

function fail(error) {
  print({ event: 'error', detail: `${error.name}: ${error.message}` })
  process.exit(1)
}

/** Commits what was read since the last commit. */
async function commit() {
  const offsets = [...read.values()]
  uncommitted = 0
  read.clear()
  if (offsets.length === 0) return
  await consumer.commitOffsets(offsets.map(({ offset, ...partition }) => ({ ...partition, offset: String(offset) })))
  for (const one of offsets) print({ event: 'committed', ...one })
}

async function eachBatch({ batch, isRunning, isStale }) {
  if (closing || !isRunning() || isStale()) return
  const { topic, partition, messages } = batch
  for (let from = 0; from < messages.length; ) {
    let to = from + 1
    while (to < messages.length && Number(messages[to].offset) === Number(messages[to - 1].offset) + 1) to++
    const run = { from: Number(messages[from].offset), to: Number(messages[to - 1].offset) + 1 }
    print({ event: 'records', topic, partition, ...run })
    read.set(`${topic} ${partition}`, { topic, partition, offset: run.to })
    from = to
  }
  uncommitted += messages.length
  if (uncommitted >= options.commitEvery) await commit()
}

async function close() {
  if (closing) return
  closing = true
  try {
    await commit()
    await consumer.disconnect()
  } catch (error) {
    fail(error)
  }
  print({ event: 'closed' })
  process.exit(0)
}

/** Does it again until it succeeds: the broker may not be there yet. */
async function insist(step) {
  for (;;) {
    try {
      return await step()
    } catch (error) {
      if (!error.retriable && error.name !== 'KafkaJSNumberOfRetriesExceeded') throw error
    }
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
}

async function join() {
  await codecs.register()
  // Before it joins again it gives everything up, and goes on from what is committed.
  const forget = () => {
    uncommitted = 0
    read.clear()
    if (!closing) assigned({})
  }
  consumer.on(consumer.events.REBALANCING, forget)
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => assigned(payload.memberAssignment))
  consumer.on(consumer.events.CRASH, ({ payload: { error, restart } }) => {
    if (!restart) fail(error)
    forget()
  })
  const lines = readline.createInterface({ input: process.stdin })
  lines.on('line', (line) => line.trim() === 'close' && close())
  lines.on('close', close)
  await insist(() => consumer.connect())
  await insist(() => consumer.subscribe({ topics: [options.topic], fromBeginning: true }))
  await consumer.run({ autoCommit: false, eachBatch })
}

const detail = impossible()
if (detail) print({ event: 'n/a', detail })
else join().catch(fail)
