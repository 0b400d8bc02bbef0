"""Trials: pairs of utterances, target (same speaker) or non-target, in the form of VoxCeleb's lists."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
from lhotse import MonoCut
from numpy.typing import NDArray

from pipeline.corpus.read import speaker_of
from pipeline.errors import InputError
from pipeline.files import write_atomically

_FORM = "`1 <enrolment> <test>` or `0 <enrolment> <test>`, and perhaps a group's name"

# Up to here every non-target pair is listed and some are drawn; beyond, pairs are drawn and those of one speaker
# rejected. The first is exact and quick for few utterances, the second needs no memory for many.
_LISTED_PAIRS = 4_000_000


@dataclass(frozen=True)
class Trial:
    """Is the test utterance spoken by the speaker of the enrolment utterance? `line` is where a list says so.

    `group` is the list's own label for the trial, by which error rates may be broken down; empty: none.
    """

    target: bool
    enrolment: str
    test: str
    line: int = field(default=0, compare=False)
    group: str = field(default="", compare=False)


def read_trials(path: str | PathLike[str]) -> list[Trial]:
    """Trials of a list in VoxCeleb's form, one per line: `1 a b` for a target, `0 a b` for a non-target trial.

    A fourth word, if there is one, is the trial's group: `1 a b female`.

    Blank lines are passed over. Raises InputError naming the file, the line and what was found there.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(path, expected="a trial list", found="no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, expected="a trial list", found=str(error)) from error
    trials = []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) not in (3, 4) or fields[0] not in ("0", "1"):
            shown = line if len(line) <= 120 else line[:117] + "..."
            raise InputError(f"{path}:{number}", expected=_FORM, found=repr(shown))
        trials.append(Trial(fields[0] == "1", fields[1], fields[2], number, fields[3] if len(fields) == 4 else ""))
    if not trials:
        raise InputError(path, expected=f"a trial list, lines of {_FORM}", found="no trials")
    return trials


def write_trials(trials: Iterable[Trial], path: str | PathLike[str]) -> None:
    """Write trials in VoxCeleb's form.

    Raises InputError if the name of an utterance is empty or holds white space, which the form cannot carry.
    """
    lines = []
    for trial in trials:
        for name in (trial.enrolment, trial.test):
            if len(name.split()) != 1 or name.strip() != name:
                raise InputError(path, expected="utterance names without white space", found=repr(name))
        lines.append(" ".join(filter(None, (str(int(trial.target)), trial.enrolment, trial.test, trial.group))) + "\n")
    write_atomically(Path(path), "".join(lines))


def check_trials_against(
    trials: Sequence[Trial], ids: Collection[str], *, trials_path: str | PathLike[str], corpus: str | PathLike[str]
) -> None:
    """Raises InputError naming the trial list, the line and the utterance if a trial names one that is not in `ids`."""
    for position, trial in enumerate(trials, start=1):
        for name in (trial.enrolment, trial.test):
            if name not in ids:
                raise InputError(
                    f"{trials_path}:{trial.line or position}",
                    expected=f"an utterance of {corpus}",
                    found=f"{name}, which is not there",
                )


def all_pairs_trials(
    cuts: Iterable[MonoCut], *, max_trials: int | None = None, seed: int = 0, same_recording: bool = True
) -> list[Trial]:
    """Every unordered pair of cuts as a trial, or a seeded sample of `max_trials` of them; sorted by the cuts' ids.

    A sample keeps all target trials if they fill at most half of it, else it draws half targets and half non-targets
    (as far as there are so many). `same_recording=False` leaves out pairs of windows of one recording.

    Raises InputError if there is no target or no non-target pair.
    """
    ordered = sorted(cuts, key=lambda cut: str(cut.id))
    ids = [str(cut.id) for cut in ordered]
    _, speakers = np.unique([speaker_of(cut) for cut in ordered], return_inverse=True)
    _, recordings = np.unique([str(cut.recording_id) for cut in ordered], return_inverse=True)
    targets = _target_pairs(speakers)
    if not same_recording:
        targets = targets[recordings[targets[:, 0]] != recordings[targets[:, 1]]]
    counts = np.bincount(speakers) if len(ids) else np.zeros(0, dtype=np.int64)
    nontarget_count = (len(ids) ** 2 - int((counts.astype(np.int64) ** 2).sum())) // 2
    if not len(targets) or not nontarget_count:
        raise InputError(
            "trials",
            expected="utterances that make target and non-target pairs",
            found=f"{len(ids)} utterances of {len(counts)} speakers: {len(targets)} target, "
            f"{nontarget_count} non-target pairs",
        )
    rng = np.random.default_rng(seed)
    if max_trials is not None and max_trials < len(targets) + nontarget_count:
        kept_targets = min(len(targets), max(max_trials // 2, max_trials - nontarget_count))
        targets = targets[rng.permutation(len(targets))[:kept_targets]]
        nontarget_count = max_trials - kept_targets
    pairs = np.concatenate([targets, _nontarget_pairs(speakers, nontarget_count, rng)])
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return [Trial(bool(speakers[i] == speakers[j]), ids[i], ids[j]) for i, j in pairs.tolist()]


def _target_pairs(speakers: NDArray[np.int64]) -> NDArray[np.int64]:
    """[pairs, 2] indices i < j of the same speaker."""
    blocks = [np.zeros((0, 2), dtype=np.int64)]
    for members in np.split(np.argsort(speakers, kind="stable"), np.cumsum(np.bincount(speakers))[:-1]):
        first, second = np.triu_indices(len(members), k=1)
        blocks.append(np.stack([members[first], members[second]], axis=1))
    return np.concatenate(blocks)


def _nontarget_pairs(speakers: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """[count, 2] distinct indices i < j of different speakers, drawn evenly; `count` of them must exist."""
    n = len(speakers)
    if n * (n - 1) // 2 <= _LISTED_PAIRS:
        first, second = np.triu_indices(n, k=1)
        different = np.flatnonzero(speakers[first] != speakers[second])
        drawn = different[rng.permutation(len(different))[:count]]
        return np.stack([first[drawn], second[drawn]], axis=1)
    keys = np.zeros(0, dtype=np.int64)
    while len(keys) < count:
        i, j = np.sort(rng.integers(0, n, (2, 2 * (count - len(keys)) + 1024)), axis=0)
        fresh = (i * n + j)[speakers[i] != speakers[j]]
        keys = np.unique(np.concatenate([keys, fresh]))
    keys = keys[rng.permutation(len(keys))[:count]]
    return np.stack([keys // n, keys % n], axis=1)
