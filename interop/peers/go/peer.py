"""go-libp2p's daemon `p2pd` as the program under test: this drives it through its control socket.

Every stream of the daemon is a connection to a Unix socket of its own. The daemon ends both halves
of a stream at the end of one, so that nothing here half-closes (`half_close` is false).
"""

import asyncio
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from plan import *  # noqa: E402, F403

# The daemon's requests (its p2pd.proto).
CONNECT, STREAM_OPEN, STREAM_HANDLER, IDENTIFY_SELF = 1, 2, 3, 0
# go allows this many outbound streams of one protocol to one peer, and more in all.
STREAMS_AT_ONCE = 200
STEP_MAX = 30
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def base58(data):
    number, out = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        out = ALPHABET[digit] + out
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + out


def unbase58(text):
    number = 0
    for char in text:
        number = number * 58 + ALPHABET.index(char)
    return b"\0" * (len(text) - len(text.lstrip("1"))) + number.to_bytes(
        (number.bit_length() + 7) // 8, "big"
    )


def pack_addr(text):
    """The bytes of /ip4/A/tcp/P."""
    _, kind, ip, _, port = text.split("/")[:5]
    if kind != "ip4":
        raise SystemExit(f"an address that this wrapper does not know: {text}")
    return b"\x04" + socket.inet_aton(ip) + b"\x06" + int(port).to_bytes(2, "big")


def show_addr(data):
    if len(data) == 8 and data[0] == 4 and data[5] == 6:
        return f"/ip4/{socket.inet_ntoa(data[1:5])}/tcp/{int.from_bytes(data[6:8], 'big')}"
    return "bytes " + data.hex()


async def read_message(reader):
    length = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return await reader.readexactly(length)


class Daemon:
    def __init__(self, folder):
        self.folder = folder
        self.control = f"{folder}/control"
        self.process = None

    async def start(self, program, settings):
        if settings.muxer != "yamux":
            raise SystemExit("the daemon has no other multiplexer than yamux")
        command = [
            program, "-listen", f"/unix{self.control}", "-tls=false", "-noise=true",
            "-b=false", "-dht=false", "-pubsub=false", "-natPortMap=false", "-autonat=false",
            "-relay=false", "-relayService=false", "-relayDiscovery=false", "-muxer", "yamux",
        ]
        if settings.is_dialer:
            command.append("-noListenAddrs")
        else:
            command += ["-hostAddrs", f"/ip4/{settings.ip}/tcp/0"]
        self.process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr
        )
        for _ in range(40 * STEP_MAX):
            if os.path.exists(self.control):
                return
            if self.process.returncode is not None:
                break
            await asyncio.sleep(0.025)
        raise SystemExit("the daemon does not run")

    def stop(self):
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()

    async def ask(self, kind, request=b""):
        """Sends a request on a connection of its own; gives the answer and the connection."""
        reader, writer = await asyncio.open_unix_connection(self.control)
        message = field(1, kind) + request
        writer.write(uvarint(len(message)) + message)
        answer = fields(await asyncio.wait_for(read_message(reader), STEP_MAX))
        if answer[1][0] != 0:
            writer.close()
            raise RuntimeError(fields(answer[2][0])[1][0].decode())
        return answer, reader, writer

    async def self_addrs(self):
        answer, _, writer = await self.ask(IDENTIFY_SELF)
        writer.close()
        own = fields(answer[4][0])
        peer = base58(own[1][0])
        return [f"{show_addr(addr)}/p2p/{peer}" for addr in own.get(2, [])]

    async def connect(self, addr):
        peer = unbase58(addr.rsplit("/p2p/", 1)[1])
        request = field(2, field(1, peer) + field(2, pack_addr(addr)))
        _, _, writer = await self.ask(CONNECT, request)
        writer.close()
        return peer

    async def open(self, peer, protocol):
        request = field(3, field(1, peer) + field(2, protocol.encode()))
        _, reader, writer = await self.ask(STREAM_OPEN, request)
        return reader, writer

    async def handle(self, protocol, answer):
        path = f"{self.folder}/{protocol.strip('/').replace('/', '-')}"

        async def served(reader, writer):
            try:
                await read_message(reader)
                await answer(reader, writer)
            except (OSError, asyncio.IncompleteReadError) as error:
                print(f"{protocol}: {error!r}", file=sys.stderr)
            finally:
                writer.close()

        server = await asyncio.start_unix_server(served, path, backlog=1024)
        unix = path.encode()
        addr = uvarint(400) + uvarint(len(unix)) + unix
        request = field(4, field(1, addr) + field(2, protocol.encode()) + field(3, 0))
        _, _, writer = await self.ask(STREAM_HANDLER, request)
        writer.close()
        return server


async def answer_echo(reader, writer):
    while data := await reader.read(PIECE_LEN):
        writer.write(data)
        await writer.drain()


async def send_zeros(writer, length):
    zeros = bytes(PIECE_LEN)
    for at in range(0, length, PIECE_LEN):
        writer.write(zeros[: min(PIECE_LEN, length - at)])
        await writer.drain()


async def answer_perf(reader, writer):
    wanted = int.from_bytes(await reader.readexactly(8), "big")
    while await reader.read(PIECE_LEN):
        pass
    await send_zeros(writer, wanted)


async def ping(stream):
    reader, writer = stream
    data = os.urandom(PING_LEN)
    writer.write(data)
    if await reader.readexactly(PING_LEN) != data:
        raise RuntimeError("the pong differs from the ping")


async def echo(stream, length):
    reader, writer = stream
    message = os.urandom(length)

    async def send():
        for at in range(0, length, PIECE_LEN):
            writer.write(message[at : at + PIECE_LEN])
            await writer.drain()

    sending = asyncio.create_task(send())
    came = await reader.readexactly(length)
    await sending
    writer.close()
    if came != message:
        raise RuntimeError("other bytes came back")


async def streams_at_once(daemon, peer):
    async def one():
        reader, writer = await daemon.open(peer, ECHO)
        message = os.urandom(STREAM_LEN)
        writer.write(message)
        if await reader.readexactly(STREAM_LEN) != message:
            raise RuntimeError("another echo")
        return reader, writer

    for reader, writer in await asyncio.gather(*(one() for _ in range(STREAMS))):
        writer.close()


async def backlog(daemon, peer):
    permits = asyncio.Semaphore(STREAMS_AT_ONCE)

    async def one():
        async with permits:
            await echo(await daemon.open(peer, ECHO), BACKLOG_LEN)

    await asyncio.gather(*(one() for _ in range(BACKLOG)))


async def perf(stream):
    reader, writer = stream
    begun = time.monotonic()
    writer.write(BULK_LEN.to_bytes(8, "big"))
    await send_zeros(writer, BULK_LEN)
    writer.write_eof()
    count = len(await reader.readexactly(1))
    turned = time.monotonic()
    while data := await reader.read(PIECE_LEN):
        count += len(data)
    if count != BULK_LEN:
        raise RuntimeError(f"{count} of {BULK_LEN} bytes came")
    ended = time.monotonic()
    return {
        "bytes": count, "uploadMillis": millis(turned - begun),
        "downloadMillis": millis(ended - turned),
    }


async def push(daemon, peer):
    async def known(until):
        while True:
            reader, writer = await daemon.open(peer, KNOWN)
            names = (await reader.read(-1)).decode().split()
            writer.close()
            if until(names):
                return names
            await asyncio.sleep(ASK_AGAIN)

    if LATE in await known(lambda names: names):
        raise RuntimeError(f"{LATE} is known before it is served")
    begun = time.monotonic()
    server = await daemon.handle(LATE, answer_echo)
    await known(lambda names: LATE in names)
    server.close()
    return {"pushMillis": millis(time.monotonic() - begun)}


async def identify(daemon, peer):
    reader, _ = await daemon.open(peer, IDENTIFY)
    return identified(await reader.read(-1), show_addr)


async def dial(daemon, settings):
    addr = await asyncio.to_thread(settings.listener)
    begun = time.monotonic()
    peer = await daemon.connect(addr)
    took = lambda: millis(time.monotonic() - begun)
    match settings.scenario:
        case "ping":
            stream = await daemon.open(peer, PING)
            await ping(stream)
            whole = took()
            begun = time.monotonic()
            await ping(stream)
            return {"handshakePlusOneRTTMillis": whole, "pingRTTMilllis": took()}
        case "identify":
            return await identify(daemon, peer)
        case "talk":
            said = await identify(daemon, peer)
            stream = await daemon.open(peer, PING)
            await ping(stream)
            begun = time.monotonic()
            await ping(stream)
            rtt = took()
            await echo(await daemon.open(peer, ECHO), TALK_LEN)
            return {"agent": said["agent"], "pingRTTMilllis": rtt, "bytes": TALK_LEN}
        case "push":
            return await push(daemon, peer)
        case "echo":
            await echo(await daemon.open(peer, ECHO), BULK_LEN)
            return {"bytes": BULK_LEN, "echoMillis": took()}
        case "streams":
            await streams_at_once(daemon, peer)
            return {"streams": STREAMS, "streamsMillis": took()}
        case "perf":
            return await perf(await daemon.open(peer, PERF))
        case "big-backlog":
            await backlog(daemon, peer)
            result = {"streams": BACKLOG, "backlogMillis": took()}
            await ping(await daemon.open(peer, PING))
            return result
        case other:
            raise SystemExit(f"there is no scenario {other}")


async def main():
    settings = Settings()
    with tempfile.TemporaryDirectory(prefix="p2pd-") as folder:
        daemon = Daemon(folder)
        try:
            await daemon.start(sys.argv[1], settings)
            if settings.is_dialer:
                show(await asyncio.wait_for(dial(daemon, settings), settings.limit))
                return
            servers = [
                await daemon.handle(ECHO, answer_echo),
                await daemon.handle(PERF, answer_perf),
            ]
            settings.tell(await daemon.self_addrs())
            await asyncio.gather(*(server.serve_forever() for server in servers))
        finally:
            daemon.stop()


asyncio.run(main())
