"""An engine without a runtime: embeds by a scaled mean over frames, and misbehaves as its model file tells it to.

The model file is JSON: `scale`, `latency_ns`, `kernels`, `complaint` (the line to fail with), `signal` (to die of),
`die_at` (the start, counted from 1, at which to die), `sleep_seconds`, `skip_utterance`, `nan`.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

STATE = {"governor": None, "clock_hz": [], "max_clock_hz": [], "temperature_mc": {}, "load_milli": None}

parser = argparse.ArgumentParser()
for name in ("--model", "--features", "--out"):
    parser.add_argument(name, type=Path)
for name in ("--warmup", "--runs", "--speed-frames", "--threads"):
    parser.add_argument(name, type=int)
parser.add_argument("--skip-accuracy", action="store_true")
parser.add_argument("--sha256")
options, _ = parser.parse_known_args()
model = json.loads(options.model.read_text())

log = options.model.with_suffix(".log")
with log.open("a") as stream:
    stream.write(("speed" if options.skip_accuracy else "accuracy") + "\n")
starts = len(log.read_text().splitlines())

features = load_file(options.features)
print("INFO: a runtime that talks", file=sys.stderr)
print("progress 1 2", file=sys.stderr, flush=True)
time.sleep(model.get("sleep_seconds", 0))
if "complaint" in model:
    print(model["complaint"], file=sys.stderr)
    sys.exit(2)
if "signal" in model and model.get("die_at", starts) == starts:
    os.kill(os.getpid(), model["signal"])

embeddings = {}
if not options.skip_accuracy:
    embeddings = {key: (model["scale"] * value.mean(axis=0)).astype(np.float32) for key, value in features.items()}
    embeddings.pop(model.get("skip_utterance"), None)
    if model.get("nan"):
        next(iter(embeddings.values()))[0] = np.nan
    save_file(embeddings, options.out / "embeddings.safetensors")
else:
    assert len(features) == 1
    assert next(iter(features.values())).shape[0] == options.speed_frames
record = {
    "engine": "executorch" if options.model.suffix == ".pte" else "litert",
    "runtime_version": "0",
    "model": options.model.name,
    "model_bytes": options.model.stat().st_size,
    "model_sha256": options.sha256,
    "threads": options.threads,
    "kernels": model.get("kernels", []),
    "delegates": [],
    "load_ns": 10,
    "first_ns": 20,
    "latency_ns": [model.get("latency_ns", 1000) + run for run in range(options.runs)],
    "resident_before_bytes": 100,
    "resident_after_load_bytes": 200,
    "resident_after_run_bytes": 300,
    "peak_bytes": 400,
    "utterances": len(features) if embeddings else 0,
    "resumed": 0,
    "machine": {
        "os": "an os",
        "kernel": "0",
        "architecture": "none",
        "cpu_model": "a processor",
        "cpu_features": [],
        "cores": 1,
        "memory_bytes": 1,
    },
    "before": STATE,
    "after": STATE,
}
(options.out / "engine.json").write_text(json.dumps(record))
print("progress 2 2", file=sys.stderr, flush=True)
