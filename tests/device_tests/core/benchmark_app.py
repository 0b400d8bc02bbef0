"""The benchmark app's entry into the core, as a program: `voxpress_benchmark` with the arguments of the intent."""

from __future__ import annotations

import sys

from tests.device_tests.core.capi import benchmark

if __name__ == "__main__":
    code, text = benchmark(*sys.argv[1:])
    if text:
        print(text, file=sys.stderr)
    sys.exit(code)
