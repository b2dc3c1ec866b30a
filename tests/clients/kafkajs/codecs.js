// The codecs that kafkajs leaves to others, from packages that need no compiler.

const { CompressionCodecs, CompressionTypes } = require('kafkajs')
const lz4 = require('lz4js')
const xxhash = require('lz4js/xxh32')
const snappy = require('snappyjs')
const zstd = require('@bokuweb/zstd-wasm')

// Java clients put snappy blocks into a frame of their own: 16 bytes of header, then each block with its
// length. Everybody else writes one bare block.
const FRAME_MAGIC = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0x00])

function snappyBlocks(buffer) {
  if (!buffer.subarray(0, FRAME_MAGIC.length).equals(FRAME_MAGIC)) {
    return Buffer.from(snappy.uncompress(buffer))
  }
  const blocks = []
  for (let position = 16; position < buffer.length; ) {
    const end = position + 4 + buffer.readUInt32BE(position)
    blocks.push(Buffer.from(snappy.uncompress(buffer.subarray(position + 4, end))))
    position = end
  }
  return Buffer.concat(blocks)
}

// lz4js does not say in the frame's flags that blocks stand on their own, which Kafka insists on. Up to
// 4 MiB there is only one block, of which it is true.
function lz4Frame(buffer) {
  const frame = Buffer.from(lz4.compress(buffer))
  frame[4] |= 0x20
  frame[6] = xxhash.hash(0, frame, 4, 2) >> 8
  return frame
}

/** Makes them known to kafkajs. */
async function register() {
  await zstd.init()
  CompressionCodecs[CompressionTypes.Snappy] = () => ({
    compress: async (encoder) => Buffer.from(snappy.compress(encoder.buffer)),
    decompress: async (buffer) => snappyBlocks(buffer),
  })
  CompressionCodecs[CompressionTypes.LZ4] = () => ({
    compress: async (encoder) => lz4Frame(encoder.buffer),
    decompress: async (buffer) => Buffer.from(lz4.decompress(buffer)),
  })
  CompressionCodecs[CompressionTypes.ZSTD] = () => ({
    compress: async (encoder) => Buffer.from(zstd.compress(encoder.buffer)),
    decompress: async (buffer) => Buffer.from(zstd.decompress(buffer)),
  })
}

module.exports = { register }
