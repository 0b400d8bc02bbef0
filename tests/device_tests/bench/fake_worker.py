"""A contender without a runtime: answers as its arguments tell it to, or misbehaves.

fake_worker.py SAMPLE_NS [--refuse TEXT] [--die-at RUN] [--hang-at RUN] [--babble-at RUN]
                         [--spin-seconds S]
"""

import argparse
import json
import os
import signal
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("sample_ns", type=int)
parser.add_argument("--refuse")
parser.add_argument("--die-at", type=int)
parser.add_argument("--hang-at", type=int)
parser.add_argument("--babble-at", type=int)
parser.add_argument("--spin-seconds", type=float, default=0.0, help="go on for so long after an answer")
options = parser.parse_args()


def answer(members: dict) -> None:
    print(json.dumps(members), flush=True)


print("INFO: a runtime that talks", file=sys.stderr, flush=True)
if options.refuse:
    print(options.refuse, file=sys.stderr)
    sys.exit(2)
answer(
    {
        "engine": "fake",
        "runtime_version": os.environ["OMP_NUM_THREADS"],
        "threads": len(os.sched_getaffinity(0)),
        "kernels": [],
        "delegates": [],
        "load_ns": 5,
        "first_ns": 6,
        "resident_before_bytes": 100,
        "resident_after_load_bytes": 150,
        "resident_after_first_bytes": 170,
    }
)
turn = 0
for line in sys.stdin:
    words = line.split()
    if words[0] == "run":
        turn += 1
        if turn == options.die_at:
            print("the last thing it says", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        if turn == options.hang_at:
            time.sleep(60)
        if turn == options.babble_at:
            print("not json", flush=True)
            continue
        answer({"latency_ns": [options.sample_ns + turn] * int(words[2])})
        spin_until = time.monotonic() + options.spin_seconds
        while time.monotonic() < spin_until:
            pass
    elif words[0] == "embed":
        answer({"embeddings": {"a": [1.0, 2.0]}})
    else:
        answer({"resident_bytes": 200, "peak_bytes": 250, "kernels": []})
