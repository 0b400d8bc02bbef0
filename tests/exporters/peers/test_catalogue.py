from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from exporters.peers.build import _BUILDERS
from exporters.peers.catalogue import PEERS, peer_named
from pipeline.errors import InputError

ROOT = Path(__file__).resolve().parents[3]


def test_every_peer_can_be_built_and_every_builder_has_a_peer() -> None:
    assert set(_BUILDERS) == {peer.name for peer in PEERS}
    assert all(peer_named(peer.name) is peer for peer in PEERS)
    with pytest.raises(InputError, match=r"peer: expected one of executorch-fp32.*, found tvm"):
        peer_named("tvm")


def test_every_package_is_pinned_in_the_lock_or_in_the_extra() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["peers"]
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    assert all("==" in line for line in extra)
    pinned = {line.split("==")[0].lower() for line in [*extra, *lock]}
    assert {package.lower() for peer in PEERS for package in peer.packages} <= pinned
    # The extra is large and CI does without it.
    assert not {line.split("==")[0].lower() for line in extra} & {line.split("==")[0].lower() for line in lock}
