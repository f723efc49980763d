"""A py-libp2p node as the program under test; ../../README.md describes the interface."""

import logging
import os
import sys
import time
from pathlib import Path

import trio
from libp2p import create_mplex_muxer_option, create_yamux_muxer_option, new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key
from libp2p.custom_types import TProtocol
from libp2p.host.ping import PingService, handle_ping
from libp2p.identity.identify_push.identify_push import push_identify_to_peer
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.perf import PerfService
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from multiaddr import Multiaddr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from plan import *  # noqa: E402, F403

# Its mplex stalls as a dialer of many streams, however few are open at once.
STREAMS_AT_ONCE = {"yamux": 100, "mplex": 10}


def make_host(settings):
    key = create_new_key_pair()
    only = {"yamux": create_yamux_muxer_option, "mplex": create_mplex_muxer_option}
    name = {"yamux": "/yamux/1.0.0", "mplex": "/mplex/6.7.0"}[settings.muxer]
    muxers = {key: value for key, value in only[settings.muxer]().items() if key == name}
    noise = Noise(key, noise_privkey=create_noise_key().private_key)
    return new_host(key_pair=key, muxer_opt=muxers, sec_opt={NOISE: noise})


async def read(stream):
    """The next bytes; empty at the other side's end."""
    try:
        return await stream.read(PIECE_LEN)
    except StreamEOF:
        return b""


async def answer_echo(stream):
    while data := await read(stream):
        await stream.write(data)
    await stream.close()


def answer_known(host):
    async def answer(stream):
        names = host.get_peerstore().get_protocols(stream.muxed_conn.peer_id)
        await stream.write("\n".join(names).encode() + b"\n")
        await stream.close()

    return answer


async def read_all(stream):
    answer = bytearray()
    while data := await read(stream):
        answer += data
    return bytes(answer)


async def echo(stream, length, before_end=None):
    message = os.urandom(length)
    echoed = trio.Event()

    async def send():
        for at in range(0, length, PIECE_LEN):
            await stream.write(message[at : at + PIECE_LEN])
        if before_end is not None:
            await echoed.wait()
            await before_end()
        await stream.close_write()

    came = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while data := await read(stream):
            came += data
            if len(came) == length:
                echoed.set()
    if came != message:
        raise RuntimeError(f"{len(came)} of {length} bytes came back, or others")


async def streams_at_once(open_stream):
    reached, all_echoed = 0, trio.Event()

    async def before_end():
        nonlocal reached
        reached += 1
        if reached == STREAMS:
            all_echoed.set()
        await all_echoed.wait()

    async def one():
        await echo(await open_stream(ECHO), STREAM_LEN, before_end)

    async with trio.open_nursery() as nursery:
        for _ in range(STREAMS):
            nursery.start_soon(one)


async def backlog(open_stream, at_once):
    permits = trio.Semaphore(at_once)

    async def one():
        async with permits:
            await echo(await open_stream(ECHO), BACKLOG_LEN)

    async with trio.open_nursery() as nursery:
        for _ in range(BACKLOG):
            nursery.start_soon(one)


async def perf(stream):
    begun = time.monotonic()
    await stream.write(BULK_LEN.to_bytes(8, "big"))
    zeros = bytes(PIECE_LEN)
    for _ in range(BULK_LEN // PIECE_LEN):
        await stream.write(zeros)
    await stream.close_write()
    count, turned = 0, None
    while data := await read(stream):
        turned = turned or time.monotonic()
        count += len(data)
    if count != BULK_LEN:
        raise RuntimeError(f"{count} of {BULK_LEN} bytes came")
    return {
        "bytes": count, "uploadMillis": millis(turned - begun),
        "downloadMillis": millis(time.monotonic() - turned),
    }


async def push(host, peer, open_stream):
    async def known(until):
        while True:
            stream = await open_stream(KNOWN)
            names = (await read_all(stream)).decode().split()
            await stream.close()
            if until(names):
                return names
            await trio.sleep(ASK_AGAIN)

    if LATE in await known(lambda names: names):
        raise RuntimeError(f"{LATE} is known before it is served")
    begun = time.monotonic()
    host.set_stream_handler(TProtocol(LATE), answer_echo)
    # It tells of new addresses by itself, and not of new protocols.
    if not await push_identify_to_peer(host, peer):
        raise RuntimeError("the push has failed")
    await known(lambda names: LATE in names)
    return {"pushMillis": millis(time.monotonic() - begun)}


async def dial(host, settings):
    addr = await trio.to_thread.run_sync(settings.listener)
    info = info_from_p2p_addr(Multiaddr(addr))
    begun = time.monotonic()
    took = lambda: millis(time.monotonic() - begun)
    await host.connect(info)
    peer = info.peer_id
    open_stream = lambda protocol: host.new_stream(peer, [protocol])
    pings = PingService(host)

    async def identify():
        answer = await read_all(await open_stream(IDENTIFY))
        return identified(answer, lambda addr: str(Multiaddr(addr)))

    match settings.scenario:
        case "ping":
            await pings.ping(peer)
            whole = took()
            begun = time.monotonic()
            await pings.ping(peer)
            return {"handshakePlusOneRTTMillis": whole, "pingRTTMilllis": took()}
        case "identify":
            return await identify()
        case "talk":
            said = await identify()
            await pings.ping(peer)
            begun = time.monotonic()
            await pings.ping(peer)
            ping = took()
            await echo(await open_stream(ECHO), TALK_LEN)
            # Its answer to the other side's identify has gone out by then.
            await trio.sleep(0.5)
            return {"agent": said["agent"], "pingRTTMilllis": ping, "bytes": TALK_LEN}
        case "push":
            return await push(host, peer, open_stream)
        case "echo":
            await echo(await open_stream(ECHO), BULK_LEN)
            return {"bytes": BULK_LEN, "echoMillis": took()}
        case "streams":
            await streams_at_once(open_stream)
            return {"streams": STREAMS, "streamsMillis": took()}
        case "perf":
            return await perf(await open_stream(PERF))
        case "big-backlog":
            await backlog(open_stream, STREAMS_AT_ONCE[settings.muxer])
            result = {"streams": BACKLOG, "backlogMillis": took()}
            await pings.ping(peer)
            return result
        case other:
            raise SystemExit(f"there is no scenario {other}")


async def main():
    settings = Settings()
    host = make_host(settings)
    addrs = [] if settings.is_dialer else [Multiaddr(f"/ip4/{settings.ip}/tcp/0")]
    async with host.run(listen_addrs=addrs):
        if settings.is_dialer:
            with trio.fail_after(settings.limit):
                show(await dial(host, settings))
            # Closing the host is no part of a scenario.
            os._exit(0)
        host.set_stream_handler(PING, handle_ping)
        host.set_stream_handler(ECHO, answer_echo)
        host.set_stream_handler(TProtocol(KNOWN), answer_known(host))
        await PerfService(host).start()
        settings.tell([str(addr) for addr in host.get_addrs()])
        await trio.sleep_forever()


logging.basicConfig(level=os.environ.get("PY_LOG", "WARNING"), stream=sys.stderr)
trio.run(main)
