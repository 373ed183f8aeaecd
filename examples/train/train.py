#!/usr/bin/env python3
"""Trains a small neural network in pure Python, and survives being stopped at any moment.

The task is to tell the inside of a ring from its outside (two inputs, one hidden layer, one
output). Every epoch ends with a checkpoint, written beside its place and renamed into it, so that
a reader never sees half of one. A run that finds a checkpoint goes on from it, and because each
epoch draws its order from its own seed, a run stopped ten times ends with exactly the weights of
one that never stopped.

SIGUSR1 (the warning before a time limit) and SIGTERM (a requeue or a cancel) finish the epoch,
checkpoint, and exit with code 75, "try again later".

The run fails with code 1 if the loss did not fall.
"""

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

EXIT_TRY_AGAIN = 75
HIDDEN = 12
SAMPLES = 200
LEARNING_RATE = 0.05
# The loss of a run must end below this share of where it began.
LOSS_MUST_FALL_TO = 0.5


class Network:
    """Two inputs, tanh units, one logistic output. The weights are one flat list."""

    def __init__(self, weights):
        self.weights = weights

    @classmethod
    def fresh(cls, seed):
        draw = random.Random(seed)
        return cls([draw.uniform(-1, 1) for _ in range(4 * HIDDEN + 1)])

    def forward(self, x, y):
        w = self.weights
        hidden = [math.tanh(w[4 * h] * x + w[4 * h + 1] * y + w[4 * h + 2]) for h in range(HIDDEN)]
        total = w[-1] + sum(w[4 * h + 3] * hidden[h] for h in range(HIDDEN))
        return hidden, 1 / (1 + math.exp(-max(-40.0, min(40.0, total))))

    def learn(self, x, y, label):
        """One step of stochastic gradient descent; returns the loss before it."""
        w, (hidden, guess) = self.weights, self.forward(x, y)
        error = guess - label
        for h in range(HIDDEN):
            back = error * w[4 * h + 3] * (1 - hidden[h] ** 2)
            w[4 * h + 3] -= LEARNING_RATE * error * hidden[h]
            w[4 * h] -= LEARNING_RATE * back * x
            w[4 * h + 1] -= LEARNING_RATE * back * y
            w[4 * h + 2] -= LEARNING_RATE * back
        w[-1] -= LEARNING_RATE * error
        return -math.log(max(1e-12, guess if label else 1 - guess))


def samples(seed):
    draw = random.Random(seed + 1)
    points = [(draw.uniform(-2, 2), draw.uniform(-2, 2)) for _ in range(SAMPLES)]
    return [(x, y, 1 if x * x + y * y < 1.6 else 0) for x, y in points]


class Checkpoint:
    """One JSON file in a directory that outlives the attempt."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "checkpoint.json")
        os.makedirs(directory, exist_ok=True)

    def load(self):
        try:
            with open(self.path, encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return None

    def save(self, state):
        beside = f"{self.path}.{os.getpid()}"
        with open(beside, "w", encoding="utf-8") as file:
            json.dump(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.path)


class StopRequest:
    """Remembers the first signal that asked us to stop."""

    def __init__(self):
        self.signal = None
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, self._remember)

    def _remember(self, number, _frame):
        self.signal = self.signal or signal.Signals(number).name


def say(text):
    print(text, flush=True)


def train_epoch(network, points, seed, epoch):
    order = list(points)
    random.Random(seed * 1_000_003 + epoch).shuffle(order)
    return sum(network.learn(*point) for point in order) / len(order)


def begin(checkpoint, seed):
    """Returns the state to go on from: a checkpoint's, or a fresh one."""
    state = checkpoint.load()
    if state is None:
        say("starting at epoch 0")
        return {"epoch": 0, "first_loss": None, "loss": None, "weights": Network.fresh(seed).weights}
    say(f"resumed from checkpoint at epoch {state['epoch']}, loss {state['loss']:.4f}")
    return state


def train(options):
    stop = StopRequest()
    checkpoint = Checkpoint(options.checkpoints)
    state = begin(checkpoint, options.seed)
    network, points = Network(state["weights"]), samples(options.seed)
    while state["epoch"] < options.epochs:
        started = time.monotonic()
        state["loss"] = train_epoch(network, points, options.seed, state["epoch"])
        state["first_loss"] = state["first_loss"] or state["loss"]
        state["epoch"] += 1
        checkpoint.save(state)
        if state["epoch"] % options.report_every == 0:
            say(f"epoch {state['epoch']}/{options.epochs} loss {state['loss']:.4f}")
        if stop.signal and state["epoch"] < options.epochs:
            say(f"{stop.signal}: checkpoint of epoch {state['epoch']} is safe, stopping")
            return EXIT_TRY_AGAIN
        time.sleep(max(0.0, started + options.epoch_seconds - time.monotonic()))
    return verdict(state)


def verdict(state):
    first, last = state["first_loss"], state["loss"]
    if last > first * LOSS_MUST_FALL_TO:
        say(f"the loss did not fall: {first:.4f} to {last:.4f}")
        return 1
    say(f"done: loss fell from {first:.4f} to {last:.4f}")
    return 0


def run_until_done(directory, interrupt):
    """Runs training as a process, as often as it takes; returns its output and its end state."""
    command = [sys.executable, os.path.abspath(__file__), "--checkpoints", directory,
               "--epochs", "60", "--epoch-seconds", "0.02"]
    output = ""
    while True:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            output += line
            if interrupt and line.startswith("epoch"):
                process.send_signal(interrupt.pop())
        code = process.wait(timeout=60)
        if code != EXIT_TRY_AGAIN:
            assert code == 0, f"exit code {code}\n{output}"
            with open(os.path.join(directory, "checkpoint.json"), encoding="utf-8") as file:
                return output, json.load(file)


def self_test():
    with tempfile.TemporaryDirectory() as straight, tempfile.TemporaryDirectory() as broken:
        _, wanted = run_until_done(straight, [])
        output, found = run_until_done(broken, [signal.SIGTERM, signal.SIGUSR1])
        say(output.rstrip())
        assert output.count("resumed from checkpoint") == 2, output
        assert wanted == found, "a resumed run ended elsewhere than an uninterrupted one"
    say("self-test: ok")


def main():
    parser = argparse.ArgumentParser(description="train a small network with checkpoints")
    parser.add_argument("--checkpoints", default=os.environ.get("TRAIN_CHECKPOINTS", "checkpoints"))
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--epoch-seconds", type=float, default=0.0, help="an epoch takes at least this")
    parser.add_argument("--report-every", type=int, default=5)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--self-test", action="store_true")
    options = parser.parse_args()
    return self_test() if options.self_test else train(options)


if __name__ == "__main__":
    sys.exit(main())
