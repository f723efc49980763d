// A js-libp2p node as the program under test; ../../README.md describes the interface.

import net from 'node:net'
import { randomBytes } from 'node:crypto'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify, identifyPush } from '@libp2p/identify'
import { mplex } from '@libp2p/mplex'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

// js-libp2p calls it, and Node 20 does not have it.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new Promise((yes, no) => { resolve = yes; reject = no })
  return { promise, resolve, reject }
}

const ECHO = '/echo/1.0.0'
const PERF = '/perf/1.0.0'
const KNOWN = '/known/1.0.0'
const LATE = '/late/1.0.0'
const TALK_LEN = 1000
const BULK_LEN = 10 << 20
const STREAMS = 200
const STREAM_LEN = 1000
const BACKLOG = 1000
const BACKLOG_LEN = 100
// Its multiplexers allow 1000 outbound streams; the other side may allow fewer.
const STREAMS_AT_ONCE = 200
const PIECE_LEN = 64 << 10

const env = (name, otherwise) => process.env[name] ?? otherwise
const only = (name, value) => {
  if (env(name, value) !== value) throw new Error(`${name} can only be ${value}`)
}
only('transport', 'tcp')
only('security', 'noise')
const isDialer = env('is_dialer', 'false') === 'true'
const scenario = env('scenario', 'ping')
const limit = Number(env('test_timeout_seconds', '180')) * 1000
const muxers = { yamux, mplex }
const muxer = muxers[env('muxer', 'yamux')]
if (muxer === undefined) throw new Error('muxer can be yamux or mplex')
// mplex closes a connection on which more streams than that open in a second; the default is 5.
const muxerOptions = muxer === mplex ? { disconnectThreshold: 10_000 } : {}

/** Sends one command; gives the last text of the answer. */
function redis (...words) {
  const [host, port] = env('redis_addr', 'redis:6379').split(':')
  return new Promise((resolve, reject) => {
    const socket = net.connect(Number(port), host)
    let answer = ''
    socket.on('error', reject)
    socket.on('close', () => reject(new Error(`Redis has answered ${JSON.stringify(answer)}`)))
    socket.on('connect', () => {
      const parts = words.map(word => `$${Buffer.byteLength(word)}\r\n${word}\r\n`)
      socket.write(`*${words.length}\r\n${parts.join('')}`)
    })
    socket.on('data', data => {
      answer += data
      const lines = answer.split('\r\n')
      const whole = answer.startsWith(':') ? 2 : answer.startsWith('*2') ? 6 : 2
      if (lines.length < whole) return
      if (answer.startsWith('-') || answer.startsWith('*-1')) return socket.destroy()
      resolve(lines.at(-2))
      socket.end()
    })
  })
}

const millis = begun => Math.round((performance.now() - begun) * 1000) / 1000

/**
 * Hands what comes to `take`, and resolves at the other side's end. Its own asynchronous iterator
 * ends as soon as the end is known, and loses what has come and was not handed out yet.
 */
function receive (stream, take) {
  return new Promise((resolve, reject) => {
    const guarded = work => event => {
      try { work(event) } catch (error) { reject(error) }
    }
    stream.addEventListener('message', guarded(event => take(event.data.subarray())))
    stream.addEventListener('end', () => resolve())
    stream.addEventListener('close', event => {
      if (event.error != null) reject(event.error)
    })
    if (stream.readableEnded) resolve()
  })
}

/** Sends, and waits where the stream says that it is full. */
async function send (stream, data) {
  if (!stream.send(data)) await stream.onDrain()
}

async function sendZeros (stream, length) {
  const zeros = new Uint8Array(PIECE_LEN)
  for (let left = length; left > 0; left -= PIECE_LEN) {
    await send(stream, zeros.subarray(0, Math.min(left, PIECE_LEN)))
  }
}

async function answerEcho (stream) {
  let sent = Promise.resolve()
  await receive(stream, data => { sent = sent.then(() => send(stream, data)) })
  await sent
  await stream.close()
}

async function answerPerf (stream) {
  let head = Buffer.alloc(0)
  await receive(stream, data => {
    if (head.length < 8) head = Buffer.concat([head, data])
  })
  await sendZeros(stream, Number(head.readBigUInt64BE()))
  await stream.close()
}

async function answerKnown (stream, connection) {
  const { protocols } = await node.peerStore.get(connection.remotePeer)
  await send(stream, new TextEncoder().encode(protocols.join('\n')))
  await stream.close()
}

/** The protocols that the listener knows this side to support. */
async function known (open) {
  const stream = await open(KNOWN)
  let answer = ''
  await receive(stream, data => { answer += new TextDecoder().decode(data) })
  await stream.close()
  return answer.split('\n').filter(name => name !== '')
}

async function push (open) {
  const once = async until => {
    for (;;) {
      const names = await known(open)
      if (until(names)) return names
      await new Promise(resolve => setTimeout(resolve, 50))
    }
  }
  const before = await once(names => names.length > 0)
  if (before.includes(LATE)) throw new Error(`${LATE} is known before it is served`)
  const begun = performance.now()
  await node.handle(LATE, served(answerEcho))
  await once(names => names.includes(LATE))
  return { pushMillis: millis(begun) }
}

/** Has random bytes echoed; `beforeEnd` runs between the echo and the end. */
async function echo (stream, length, beforeEnd) {
  const message = randomBytes(length)
  let seen = 0
  const echoed = Promise.withResolvers()
  const compare = async () => {
    await receive(stream, came => {
      if (!message.subarray(seen, seen + came.length).equals(came)) {
        throw new Error(`another byte came back after byte ${seen}`)
      }
      seen += came.length
      if (seen === length) echoed.resolve()
    })
    if (seen !== length) throw new Error(`${seen} of ${length} bytes came back`)
  }
  const transmit = async () => {
    for (let at = 0; at < length; at += PIECE_LEN) {
      await send(stream, message.subarray(at, at + PIECE_LEN))
    }
    if (beforeEnd !== undefined) {
      await echoed.promise
      await beforeEnd()
    }
    await stream.close()
  }
  await Promise.all([compare(), transmit()])
}

async function streamsAtOnce (open) {
  let reached = 0
  const all = Promise.withResolvers()
  const beforeEnd = () => {
    reached += 1
    if (reached === STREAMS) all.resolve()
    return all.promise
  }
  await Promise.all(Array.from({ length: STREAMS }, async () => {
    await echo(await open(ECHO), STREAM_LEN, beforeEnd)
  }))
}

async function backlog (open) {
  let left = BACKLOG
  await Promise.all(Array.from({ length: STREAMS_AT_ONCE }, async () => {
    while (left > 0) {
      left -= 1
      await echo(await open(ECHO), BACKLOG_LEN)
    }
  }))
}

async function perf (stream) {
  const begun = performance.now()
  const head = Buffer.alloc(8)
  head.writeBigUInt64BE(BigInt(BULK_LEN))
  let [count, turned] = [0, 0]
  const received = receive(stream, data => {
    if (count === 0) turned = millis(begun)
    count += data.length
  })
  await send(stream, head)
  await sendZeros(stream, BULK_LEN)
  await stream.close()
  await received
  if (count !== BULK_LEN) throw new Error(`${count} of ${BULK_LEN} bytes came`)
  return { bytes: count, uploadMillis: turned, downloadMillis: millis(begun) - turned }
}

async function run (node, addr) {
  let begun = performance.now()
  const identified = new Promise(resolve => {
    node.addEventListener('peer:identify', event => resolve(event.detail), { once: true })
  })
  const connection = await node.dial(multiaddr(addr))
  const open = protocol => connection.newStream(protocol, { maxOutboundStreams: BACKLOG })
  const pingOnce = () => node.services.ping.ping(connection.remotePeer)
  const still = async () => {
    await pingOnce()
    if (connection.status !== 'open') throw new Error('the connection is lost')
  }
  if (scenario === 'ping') {
    await pingOnce()
    const handshakePlusOneRTTMillis = millis(begun)
    begun = performance.now()
    await pingOnce()
    return { handshakePlusOneRTTMillis, pingRTTMilllis: millis(begun) }
  }
  if (scenario === 'identify') {
    const said = await identified
    return {
      agent: said.agentVersion,
      protocolVersion: said.protocolVersion,
      protocols: said.protocols,
      listenAddrs: said.listenAddrs.map(String),
      observedAddr: said.observedAddr?.toString() ?? null
    }
  }
  if (scenario === 'talk') {
    const said = await identified
    await pingOnce()
    begun = performance.now()
    await pingOnce()
    const pingRTTMilllis = millis(begun)
    await echo(await open(ECHO), TALK_LEN)
    return { agent: said.agentVersion, pingRTTMilllis, bytes: TALK_LEN }
  }
  if (scenario === 'push') return push(open)
  begun = performance.now()
  if (scenario === 'echo') {
    await echo(await open(ECHO), BULK_LEN)
    return { bytes: BULK_LEN, echoMillis: millis(begun) }
  }
  if (scenario === 'streams') {
    await streamsAtOnce(open)
    return { streams: STREAMS, streamsMillis: millis(begun) }
  }
  if (scenario === 'perf') return perf(await open(PERF))
  if (scenario === 'big-backlog') {
    await backlog(open)
    const backlogMillis = millis(begun)
    await still()
    return { streams: BACKLOG, backlogMillis }
  }
  throw new Error(`there is no scenario ${scenario}`)
}

const node = await createLibp2p({
  addresses: { listen: isDialer ? [] : [`/ip4/${env('ip', '0.0.0.0')}/tcp/0`] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [muxer(muxerOptions)],
  // Its own pings would be a third and fourth stream beside those of the scenario.
  connectionMonitor: { enabled: false },
  services: { identify: identify(), identifyPush: identifyPush(), ping: ping() }
})

const served = (answer) => (stream, connection) => answer(stream, connection).catch(error => {
  console.error(error)
  stream.abort(error)
})

if (isDialer) {
  setTimeout(() => {
    console.error(`not finished after ${limit / 1000} s`)
    process.exit(1)
  }, limit)
  const addr = await redis('BLPOP', 'listenerAddr', String(limit / 1000))
  const result = await run(node, addr)
  console.log(JSON.stringify(result))
  await node.stop()
  process.exit(0)
}
const many = { maxInboundStreams: BACKLOG }
await node.handle(ECHO, served(answerEcho), many)
await node.handle(PERF, served(answerPerf), many)
await node.handle(KNOWN, served(answerKnown), many)
const addrs = node.getMultiaddrs().map(String)
await redis('RPUSH', 'listenerAddr', addrs.find(addr => !addr.startsWith('/ip4/127.')) ?? addrs[0])
