#!/usr/bin/env python3
"""Ring all-reduce over TCP between the ranks of a gang, with the standard library alone.

Every rank holds a vector of integers. After the all-reduce every rank holds the sum of all of
them, and checks each element of it exactly against the sum it can compute by itself; a wrong
element ends the rank with exit code 1.

The ranks find each other as distributed training programs do: rank 0 listens on
MASTER_ADDR:MASTER_PORT, the others tell it where they listen, and it tells everybody the whole
list. The sum then goes round the ring in two halves:

    reduce-scatter   world-1 turns: send one chunk to the right, add the chunk from the left.
                     Afterwards each rank owns one chunk that is completely summed.
    all-gather       world-1 turns: pass the finished chunks on until everybody has all of them.

So each rank sends 2 * (world-1) / world times the vector, however many ranks there are.

Environment: MASTER_ADDR, MASTER_PORT, RANK, WORLD_SIZE, as Gotgan sets them for each task.
"""

import argparse
import json
import operator
import os
import queue
import socket
import struct
import subprocess
import sys
import threading
import time
from array import array

# A rank whose partner says nothing for this long gives up instead of hanging.
TIMEOUT_S = 60
HEADER = struct.Struct("!Q")


class AllReduceError(Exception):
    """What keeps the ranks from agreeing, said in one line."""


class Ring:
    """The two neighbours of this rank, and a thread that sends while we receive."""

    def __init__(self, rank, world, left, right):
        self.rank, self.world, self.left, self.right = rank, world, left, right
        self.outbox = queue.Queue(maxsize=4)
        self.send_error = None
        self.sender = threading.Thread(target=self._send_all, daemon=True)
        self.sender.start()

    def _send_all(self):
        while (data := self.outbox.get()) is not None:
            try:
                self.right.sendall(HEADER.pack(len(data)))
                self.right.sendall(data)
            except OSError as error:
                self.send_error = error
                return

    def exchange(self, values):
        """Sends `values` to the right and returns what came from the left."""
        if self.send_error is not None:
            raise AllReduceError(f"sending to the right failed: {self.send_error}")
        self.outbox.put(values.tobytes(), timeout=TIMEOUT_S)
        (size,) = HEADER.unpack(receive_exactly(self.left, HEADER.size))
        received = array("q")
        received.frombytes(receive_exactly(self.left, size))
        return received

    def close(self):
        self.outbox.put(None)
        self.sender.join(TIMEOUT_S)
        self.left.close()
        self.right.close()


def receive_exactly(connection, size):
    data = bytearray(size)
    view, filled = memoryview(data), 0
    while filled < size:
        got = connection.recv_into(view[filled:])
        if got == 0:
            raise AllReduceError("a neighbour closed its connection in the middle")
        filled += got
    return data


def connect(host, port):
    """Connects, patiently: the other side may not be listening yet."""
    give_up = time.monotonic() + TIMEOUT_S
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=TIMEOUT_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        except OSError as error:
            if time.monotonic() > give_up:
                raise AllReduceError(f"no one answers at {host}:{port}: {error}") from error
            time.sleep(0.05)


def listen(port):
    listener = socket.create_server(("", port), backlog=1024)
    listener.settimeout(TIMEOUT_S)
    return listener


def rendezvous(rank, world, master, own_port):
    """Returns [host, port] of every rank, the same list on each of them."""
    if rank == 0:
        return gather_peers(world, master, own_port)
    with connect(*master) as connection:
        host = connection.getsockname()[0]
        line = json.dumps({"rank": rank, "host": host, "port": own_port}) + "\n"
        connection.sendall(line.encode())
        return json.loads(connection.makefile("r").readline())


def gather_peers(world, master, own_port):
    peers = [None] * world
    peers[0] = [master[0], own_port]
    waiting = []
    with listen(master[1]) as listener:
        while len(waiting) < world - 1:
            connection, _ = listener.accept()
            connection.settimeout(TIMEOUT_S)
            peer = json.loads(connection.makefile("r").readline())
            if peers[peer["rank"]] is not None:
                raise AllReduceError(f"rank {peer['rank']} came twice")
            peers[peer["rank"]] = [peer["host"], peer["port"]]
            waiting.append(connection)
        for connection in waiting:
            connection.sendall((json.dumps(peers) + "\n").encode())
            connection.close()
    return peers


def join_ring(rank, world, master):
    listener = listen(0)
    peers = rendezvous(rank, world, master, listener.getsockname()[1])
    right = connect(*peers[(rank + 1) % world])
    left, _ = listener.accept()
    left.settimeout(TIMEOUT_S)
    listener.close()
    return Ring(rank, world, left, right)


def bounds(elements, world):
    """Begin and end of the chunk of each rank; they differ by at most one element."""
    edges = [elements * part // world for part in range(world + 1)]
    return list(zip(edges, edges[1:]))


def all_reduce(ring, values):
    """Adds up `values` over all ranks, in place."""
    chunks = bounds(len(values), ring.world)
    for turn in range(ring.world - 1):
        begin, end = chunks[(ring.rank - turn) % ring.world]
        received = ring.exchange(values[begin:end])
        begin, end = chunks[(ring.rank - turn - 1) % ring.world]
        values[begin:end] = array("q", map(operator.add, values[begin:end], received))
    for turn in range(ring.world - 1):
        begin, end = chunks[(ring.rank + 1 - turn) % ring.world]
        received = ring.exchange(values[begin:end])
        begin, end = chunks[(ring.rank - turn) % ring.world]
        values[begin:end] = received


def line(start, stride, elements):
    return array("q", range(start, start + stride * elements, stride))


def pattern(rank, turn):
    """Every rank contributes a line of its own, another one each round."""
    return 7919 * (rank + 1) + 104729 * turn, 31 * (rank + 1)


def contribution(rank, turn, elements):
    return line(*pattern(rank, turn), elements)


def expected(world, turn, elements):
    """A sum of lines is a line, so each rank can tell the whole sum without the others."""
    starts, strides = zip(*(pattern(rank, turn) for rank in range(world)))
    return line(sum(starts), sum(strides), elements)


def check(values, wanted):
    if values != wanted:
        wrong = next(i for i, pair in enumerate(zip(values, wanted)) if pair[0] != pair[1])
        raise AllReduceError(f"element {wrong} is {values[wrong]}, must be {wanted[wrong]}")


def say(text):
    print(text, flush=True)


def run_rank(options):
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    master = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    node = os.environ.get("GOTGAN_NODE", socket.gethostname())
    say(f"rank {rank}/{world} on {node} pid {os.getpid()}: meeting at {master[0]}:{master[1]}")
    ring = join_ring(rank, world, master)
    try:
        for turn in range(options.rounds):
            run_round(ring, turn, options)
    finally:
        # Also when the sum is wrong: the neighbours still need what is on its way to them.
        ring.close()
    say(f"rank {rank}/{world}: ok")


def run_round(ring, turn, options):
    values = contribution(ring.rank, turn, options.elements)
    if ring.rank == options.corrupt_rank:
        values[options.elements // 2] += 1
    begin = time.perf_counter()
    all_reduce(ring, values)
    seconds = time.perf_counter() - begin
    check(values, expected(ring.world, turn, options.elements))
    report(ring.rank, ring.world, turn, values, seconds)


def report(rank, world, turn, values, seconds):
    sent_mb = 2 * (world - 1) / world * len(values) * values.itemsize / 1e6
    say(
        f"rank {rank}/{world} round {turn}: {len(values)} elements, sum {sum(values)} exact, "
        f"{seconds * 1000:.0f} ms, {sent_mb / seconds:.0f} MB/s a rank"
    )


def spawn_ranks(world, arguments):
    """Plain processes instead of a cluster, for trying it out; returns exit codes and output."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    ranks = []
    for rank in range(world):
        environment = dict(os.environ, RANK=str(rank), WORLD_SIZE=str(world))
        environment.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        command = [sys.executable, os.path.abspath(__file__), *arguments]
        ranks.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True))
    outputs = [process.communicate(timeout=2 * TIMEOUT_S)[0] for process in ranks]
    return [process.returncode for process in ranks], "".join(outputs)


def self_test():
    for world in (1, 2, 3, 4):
        codes, output = spawn_ranks(world, ["--elements", "100003", "--rounds", "2"])
        assert codes == [0] * world, f"world of {world}: {codes}\n{output}"
        say(output.rstrip())
    codes, output = spawn_ranks(3, ["--elements", "1000", "--rounds", "1", "--corrupt-rank", "1"])
    assert codes == [1, 1, 1], f"a wrong contribution went unnoticed: {codes}\n{output}"
    assert output.count("must be") == 3, output
    say("self-test: ok")


def main():
    parser = argparse.ArgumentParser(description="ring all-reduce over TCP")
    parser.add_argument("--elements", type=int, default=1_000_000, help="length of the vector")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corrupt-rank", type=int, help="this rank contributes a wrong element")
    parser.add_argument("--self-test", action="store_true", help="start ranks here and check them")
    options = parser.parse_args()
    try:
        self_test() if options.self_test else run_rank(options)
    except (AllReduceError, OSError) as error:
        sys.exit(f"all-reduce failed on rank {os.environ.get('RANK', '-')}: {error}")


if __name__ == "__main__":
    main()
