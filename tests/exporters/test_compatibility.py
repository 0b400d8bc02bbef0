from __future__ import annotations

import pytest

from exporters.compatibility import (
    Cell,
    Compatibility,
    Mode,
    NotAsPromisedError,
    Row,
    compare,
    markdown,
    parse_kinds,
    require_well,
)
from exporters.runtimes import RUNTIMES
from pipeline.errors import InputError
from pipeline.progress import Progress


def _table(mode: Mode = "exact", **changes: object) -> Compatibility:
    cell = {"runtime": "litert", "max_relative_error": 1e-6, "cosine_min": 0.9999}
    row = {"same_bits": True, "batch_error": 0.0, "formats_error": 1e-6}
    cell |= {key: value for key, value in changes.items() if key in cell}
    row |= {key: value for key, value in changes.items() if key in row}
    made = Row(mode=mode, bits="4", input="fbank", cells=(Cell(**cell),), **row)  # type: ignore[arg-type]
    return Compatibility(versions={"litert": "2.3.0"}, frames=(30,), rows=(made,))


def test_a_row_as_promised() -> None:
    table = _table()
    require_well(table)
    assert "| exact | 4 | fbank | 1.0e-06 | yes | 0.0e+00 | 1.0e-06 | ok |" in markdown(table)
    assert "Not on this machine" not in markdown(table)
    without = markdown(table.model_copy(update={"missing": ("tensorflow",)}))
    assert "Not on this machine, so not tried: tensorflow." in without
    require_well(_table("fast", max_relative_error=0.1))
    require_well(_table("fallback", same_bits=False, formats_error=5e-5))


@pytest.mark.parametrize(
    ("mode", "change"),
    [
        ("exact", {"max_relative_error": 2e-4}),
        ("exact", {"max_relative_error": float("nan")}),
        ("exact", {"same_bits": False}),
        ("exact", {"formats_error": 2e-5}),
        ("exact", {"batch_error": 2e-5}),
        ("fast", {"cosine_min": 0.98}),
        ("fast", {"same_bits": False}),
        ("fallback", {"max_relative_error": 2e-4}),
    ],
)
def test_a_row_that_is_not(mode: Mode, change: dict[str, object]) -> None:
    table = _table(mode, **change)
    assert "NOT AS PROMISED" in markdown(table)
    with pytest.raises(NotAsPromisedError, match=f"expected {mode}, 4 bit, fbank as promised") as caught:
        require_well(table)
    assert caught.value.exit_code == 3


def test_kinds_by_name() -> None:
    assert parse_kinds(None, None) == (("8", "4", "2", "1", "mixed"), ("exact", "fast", "fallback"))
    assert parse_kinds(["2"], ["fast"]) == (("2",), ("fast",))
    with pytest.raises(InputError, match="--bits: expected one of 8, 4, 2, 1, mixed, found 9"):
        parse_kinds(["9"], None)
    with pytest.raises(InputError, match="--mode: expected one of exact, fast, fallback, found slow"):
        parse_kinds(None, ["slow"])


@pytest.mark.slow
def test_every_runtime_of_this_machine_on_one_kind() -> None:
    table = compare(Progress.silent(), bits=["2"], modes=["exact"], inputs=["fbank"])
    assert set(table.versions) == set(RUNTIMES)
    assert {cell.runtime for cell in table.rows[0].cells} == set(RUNTIMES)
    require_well(table)
