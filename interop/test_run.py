#!/usr/bin/env python3
"""Tests of the runner, with peers that do nothing well but fail."""

import contextlib
import importlib.machinery
import importlib.util
import io
import json
import socket
import sys
import tempfile
import textwrap
import threading
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent


def load(name, path):
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


run = load("run", HERE / "run")

HEAD = f"""
import os, sys, time
sys.path.insert(0, {str(HERE / "peers")!r})
from plan import *
settings = Settings()
print("a log of", sys.argv[0], file=sys.stderr, flush=True)
"""
LISTENS = 'settings.tell(["/ip4/127.0.0.1/tcp/1/p2p/x"]); time.sleep(100)\n'
PONG = 'show({"handshakePlusOneRTTMillis": 2.5, "pingRTTMilllis": 1})\n'


def dialer(does):
    """A peer that listens well, and does this as a dialer."""
    return f"if not settings.is_dialer:\n    {LISTENS}settings.listener()\n{does}"


def listener(does):
    """A peer that dials well, and does this as a listener."""
    return f"if settings.is_dialer:\n    settings.listener(); {PONG}    sys.exit()\n{does}"


GOOD = dialer(PONG)
PEERS = {
    "p2p": GOOD,
    "dies": dialer("os._exit(3)\n"),
    "rubbish": dialer('sys.stdout.write("\\x00{]" * 30)\n'),
    "lies": dialer(PONG.replace("2.5", '"soon"')),
    "much": dialer("while True: print('y' * 1000)\n"),
    "silent": dialer("time.sleep(100)\n"),
    "deaf": listener("time.sleep(100)\n"),
    "dead": listener("os._exit(4)\n"),
}


class Peers(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.kept = {name: getattr(run, name) for name in ("PEERS", "GRACE", "Redis")}
        run.GRACE, run.PEERS = 2, {}
        run.Redis = self.no_redis
        self.addCleanup(lambda: [setattr(run, *kept) for kept in self.kept.items()])

    def no_redis(self, deps):
        raise run.Missing("not for tests")

    def add(self, name, does):
        program = self.folder / f"{name}.py"
        program.write_text(HEAD + textwrap.dedent(does))
        run.PEERS[name] = lambda deps, profile: ([sys.executable, str(program)], "1"), ["yamux"]

    def matrix(self, *more):
        results = self.folder / "results"
        args = run.arguments(
            ["--deps", str(self.folder / "deps"), "--json", str(results), "--scenarios", "ping",
             "--peers", ",".join(run.PEERS), "--foreign", "none", "--limit", "1", *more]
        )
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = run.main(args)
        cells = json.loads(results.read_text())["cells"]
        return code, out.getvalue(), {(row["dialer"], row["listener"]): row for row in cells}

    def test_each_way_to_fail_is_told_with_its_cell_and_both_logs_and_the_next_is_run(self):
        for name, does in PEERS.items():
            self.add(name, does)
        run.PEERS["gone"] = lambda deps, profile: (["/nowhere/at/all"], "1"), ["yamux"]

        def missing(deps, profile):
            raise run.Missing("it cannot be had")

        run.PEERS["missing"] = missing, ["yamux"]
        code, out, rows = self.matrix()
        self.assertEqual(code, 1)
        self.assertIn("!! missing CANNOT BE RUN: it cannot be had", out)
        self.assertIn("!! missing WAS NOT RUN", out)
        self.assertTrue(rows["p2p", "p2p"]["passed"])
        for cell, cause in {
            ("dies", "p2p"): "ended with code 3",
            ("rubbish", "p2p"): "not one line of JSON",
            ("lies", "p2p"): "make no sense",
            ("much", "p2p"): "bytes or more",
            ("silent", "p2p"): "has not ended in time",
            ("p2p", "deaf"): "ended with code 1",
            ("p2p", "dead"): "the listener had ended with code 4",
            ("p2p", "gone"): "/nowhere/at/all",
            ("gone", "p2p"): "/nowhere/at/all",
        }.items():
            row = rows[cell]
            self.assertFalse(row["passed"], cell)
            self.assertIn(cause, row["failure"], cell)
            self.assertIn(f"{cell[0]} -> {cell[1]} yamux ping: **FAILED**", out)
            for side, name in zip(("dialer", "listener"), cell):
                if "gone" not in cell:
                    self.assertIn(f"a log of {self.folder}/{name}.py", row["logs"][side][0])
                    self.assertIn(f"    {side}: a log of {self.folder}/{name}.py", out)
        # Whatever came before, what can pass does.
        for cell in [("dead", "p2p"), ("p2p", "silent"), ("p2p", "much")]:
            self.assertTrue(rows[cell]["passed"], rows[cell])

    def test_what_is_expected_to_fail_is_no_failure_of_the_run(self):
        self.add("p2p", GOOD)
        self.add("dies", PEERS["dies"])
        known = dict(run.EXPECTED_FAILURES)
        self.addCleanup(lambda: setattr(run, "EXPECTED_FAILURES", known))
        run.EXPECTED_FAILURES = {("dies", "*", "*", "ping"): "it dies"}
        code, out, rows = self.matrix()
        self.assertEqual(code, 0, out)
        self.assertIn("dies → p2p, yamux, ping: it dies", out)

    def test_a_cell_that_is_known_to_be_unsteady_has_more_tries(self):
        self.add("p2p", GOOD)
        marks = self.folder / "marks"
        self.add("unsteady", dialer(f"""
open({str(marks)!r}, "a").write("x")
if len(open({str(marks)!r}).read()) < 3:
    os._exit(3)
{PONG}"""))
        self.addCleanup(setattr, run, "UNSTEADY", run.UNSTEADY)
        run.UNSTEADY = [("unsteady", "*", "*", "*")]
        code, out, rows = self.matrix()
        self.assertEqual(code, 0, out)
        self.assertEqual(rows["unsteady", "p2p"]["tries"], 3)
        self.assertIn("try 3", out)

    def test_a_listener_that_tells_no_address_ends_no_run_over_a_far_link(self):
        self.add("p2p", GOOD)
        self.add("deaf", PEERS["deaf"])
        code, out, rows = self.matrix("--delay", "1")
        self.assertEqual(code, 1)
        self.assertIn("no address", rows["p2p", "deaf"]["failure"])
        self.assertIn("roundTrips", rows["p2p", "p2p"])


class FarLink(unittest.TestCase):
    def test_bytes_and_ends_pass_both_ways(self):
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)

        def echo():
            conn, _ = server.accept()
            with conn, conn.makefile("rb") as read:
                conn.sendall(read.read())

        threading.Thread(target=echo, daemon=True).start()
        addr = f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}/p2p/x"
        link = run.FarLink(addr, 0.002)
        self.addCleanup(link.stop)
        data = bytes(range(256)) * 1000
        parts = link.addr.split("/")
        self.assertEqual((parts[:4], parts[5:]), (addr.split("/")[:4], ["p2p", "x"]))
        with socket.create_connection(("127.0.0.1", int(parts[4])), timeout=30) as conn:
            conn.sendall(data)
            conn.shutdown(socket.SHUT_WR)
            with conn.makefile("rb") as read:
                self.assertEqual(read.read(), data)

    def test_too_many_round_trips_are_those_that_others_do_without(self):
        row = lambda dialer, listener, count: {
            "dialer": dialer, "listener": listener, "muxer": "yamux", "roundTrips": count
        }
        told = lambda *rows: list(run.too_many_round_trips(rows))
        self.assertEqual(told(row("p2p", "js", 3), row("js", "js", 5)), [])
        self.assertEqual(len(told(row("p2p", "js", 4), row("js", "js", 5))), 1)
        self.assertEqual(len(told(row("p2p", "js", 3), row("js", "js", 2))), 1)
        self.assertEqual(told(row("js", "p2p", 9)), [])


if __name__ == "__main__":
    unittest.main(warnings="ignore")
