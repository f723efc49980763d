"""The test interface and the wire formats that the Python programs under test share."""

import json
import os
import socket
import sys

ECHO = "/echo/1.0.0"
PERF = "/perf/1.0.0"
KNOWN = "/known/1.0.0"
LATE = "/late/1.0.0"
PING = "/ipfs/ping/1.0.0"
IDENTIFY = "/ipfs/id/1.0.0"
PING_LEN = 32
BULK_LEN = 10 << 20
STREAMS = 200
STREAM_LEN = 1000
BACKLOG = 1000
BACKLOG_LEN = 100
TALK_LEN = 1000
ASK_AGAIN = 0.05
PIECE_LEN = 64 << 10


class Settings:
    """What the environment asks for."""

    def __init__(self):
        env = os.environ
        for name, only in (("transport", "tcp"), ("security", "noise")):
            if env.get(name, only) != only:
                raise SystemExit(f"{name} can only be {only}")
        self.muxer = env.get("muxer", "yamux")
        self.is_dialer = env.get("is_dialer", "false") == "true"
        self.ip = env.get("ip", "0.0.0.0")
        self.redis = env.get("redis_addr", "redis:6379")
        self.limit = int(env.get("test_timeout_seconds", "180"))
        self.scenario = env.get("scenario", "ping")

    def tell(self, addrs):
        """Pushes one of the addresses, not a loopback one where there is another."""
        best = [addr for addr in addrs if not addr.startswith("/ip4/127.")] or addrs
        self._redis("RPUSH", "listenerAddr", best[0])

    def listener(self):
        """Waits for a listener's address."""
        answer = self._redis("BLPOP", "listenerAddr", str(self.limit))
        if len(answer) != 2:
            raise SystemExit("no listener has told its address")
        return answer[1]

    def _redis(self, *words):
        return redis(self.redis, self.limit + 10, *words)


def redis(addr, limit, *words):
    """Sends one command to Redis; gives the texts of the answer."""
    host, port = addr.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=limit) as conn:
        parts = [f"*{len(words)}\r\n"]
        parts += [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
        conn.sendall("".join(parts).encode())
        with conn.makefile("rb") as lines:
            return redis_answer(lines)


def redis_answer(lines):
    line = lines.readline().decode().rstrip("\r\n")
    kind, rest = line[:1], line[1:]
    if kind == ":":
        return [rest]
    if kind == "$":
        length = int(rest)
        return [] if length < 0 else [lines.read(length + 2)[:-2].decode()]
    if kind == "*":
        return [text for _ in range(max(0, int(rest))) for text in redis_answer(lines)]
    raise SystemExit(f"Redis says {line!r}")


def millis(seconds):
    return round(seconds * 1000, 3)


def show(result):
    """Prints the dialer's line."""
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def uvarint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_uvarint(data, at):
    """The number at a place, and the place behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def field(number, value):
    """A protobuf field: a number, or bytes."""
    if isinstance(value, int):
        return uvarint(number << 3) + uvarint(value)
    return uvarint(number << 3 | 2) + uvarint(len(value)) + value


def fields(message):
    """The values of a protobuf message by their numbers."""
    found, at = {}, 0
    while at < len(message):
        key, at = read_uvarint(message, at)
        if key & 7 == 0:
            value, at = read_uvarint(message, at)
        else:
            length, at = read_uvarint(message, at)
            value, at = message[at : at + length], at + length
        found.setdefault(key >> 3, []).append(value)
    return found


def identified(answer, show_addr):
    """What an identify answer says; its messages are merged."""
    found, at = {}, 0
    while at < len(answer):
        length, at = read_uvarint(answer, at)
        for number, values in fields(answer[at : at + length]).items():
            found.setdefault(number, []).extend(values)
        at += length
    last = lambda number: found.get(number, [b""])[-1]
    return {
        "agent": last(6).decode(),
        "protocolVersion": last(5).decode(),
        "protocols": [name.decode() for name in found.get(3, [])],
        "listenAddrs": [show_addr(addr) for addr in found.get(2, [])],
        "observedAddr": show_addr(last(4)) if last(4) else None,
    }
