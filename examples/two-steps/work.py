#!/usr/bin/env python3
"""One task of the two-steps example: counts primes in its share of a range, or fails if told to.

TWO_STEPS_FAIL_RANK names a rank that ends with exit code 3, to see how a failed rank is reported.
"""

import os
import sys


def is_prime(number):
    return number > 1 and all(number % d for d in range(2, int(number**0.5) + 1))


def main():
    step, limit = sys.argv[1], int(sys.argv[2])
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if step == "count" and os.environ.get("TWO_STEPS_FAIL_RANK") == str(rank):
        print(f"{step}: rank {rank} fails because it was told to", file=sys.stderr, flush=True)
        return 3
    share = range(limit * rank // world, limit * (rank + 1) // world)
    found = sum(1 for number in share if is_prime(number))
    print(f"{step}: rank {rank} of {world} found {found} primes from {share.start} to {share.stop - 1}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
