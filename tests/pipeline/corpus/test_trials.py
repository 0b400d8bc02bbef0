from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from pipeline.corpus import trials as trials_module
from pipeline.corpus.split import segment_cuts
from pipeline.corpus.trials import Trial, all_pairs_trials, check_trials_against, read_trials, write_trials
from pipeline.errors import InputError
from tests.pipeline.corpus.corpora import cut

CUTS = [cut(f"s{s}/u{u}.wav") for s in range(5) for u in range(4)]


def test_lists_come_back(tmp_path: Path) -> None:
    path = tmp_path / "trials.txt"
    listed = [Trial(True, "a/1.wav", "a/2.wav"), Trial(False, "a/1.wav", "b/1.wav")]
    write_trials(listed, path)
    assert path.read_text() == "1 a/1.wav a/2.wav\n0 a/1.wav b/1.wav\n"
    assert read_trials(path) == listed


def test_blank_lines_and_tabs_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "trials.txt"
    path.write_bytes(b"1 a b\r\n\r\n0\ta\tc\r\n\n")
    listed = read_trials(path)
    assert listed == [Trial(True, "a", "b"), Trial(False, "a", "c")]
    assert [trial.line for trial in listed] == [1, 3]


def test_a_fourth_word_is_the_trials_group(tmp_path: Path) -> None:
    path = tmp_path / "trials.txt"
    path.write_text("1 a b female\n0 a c\n")
    assert [trial.group for trial in read_trials(path)] == ["female", ""]


@pytest.mark.parametrize("line", ["2 a b", "1 a", "1 a b c d", "a b 1", "target a b", "1.0 a b"])
def test_a_bad_line_is_named_and_shown(tmp_path: Path, line: str) -> None:
    path = tmp_path / "trials.txt"
    path.write_text(f"1 a b\n\n{line}\n")
    with pytest.raises(InputError) as caught:
        read_trials(path)
    assert caught.value.what == f"{path}:3"
    assert caught.value.found == repr(line)


@pytest.mark.parametrize(
    ("content", "found"), [(b"", "no trials"), (b"\n\n", "no trials"), (b"1 a \xff\xfe", "can't decode")]
)
def test_lists_without_trials(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "trials.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=found):
        read_trials(path)


def test_missing_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_trials(tmp_path / "trials.txt")


@pytest.mark.parametrize("name", ["", "a b", " a", "a\n"])
def test_names_that_a_list_cannot_carry(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="white space"):
        write_trials([Trial(True, "a", name)], tmp_path / "trials.txt")


def test_a_missing_utterance_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "trials.txt"
    path.write_text("1 a b\n\n0 a gone.wav\n")
    listed = read_trials(path)
    check_trials_against(listed, {"a", "b", "gone.wav"}, trials_path=path, corpus="corpus")
    with pytest.raises(InputError, match=r"trials\.txt:3: expected an utterance of corpus, found gone\.wav"):
        check_trials_against(listed, {"a", "b"}, trials_path=path, corpus="corpus")


def test_all_pairs() -> None:
    found = all_pairs_trials(reversed(CUTS))
    ids = sorted(cut.id for cut in CUTS)
    expected = [Trial(a.split("/")[0] == b.split("/")[0], a, b) for a, b in combinations(ids, 2)]
    assert found == expected
    assert sum(trial.target for trial in found) == 5 * 6


@pytest.mark.parametrize("listed_pairs", [10**6, 0])
@pytest.mark.parametrize(("wanted", "targets"), [(100, 30), (60, 30), (40, 20), (181, 31 - 1), (189, 30)])
def test_a_sample_keeps_targets_and_has_no_doubles(
    monkeypatch: pytest.MonkeyPatch, wanted: int, targets: int, listed_pairs: int
) -> None:
    monkeypatch.setattr(trials_module, "_LISTED_PAIRS", listed_pairs)
    everything = {(t.enrolment, t.test): t.target for t in all_pairs_trials(CUTS)}
    found = all_pairs_trials(CUTS, max_trials=wanted, seed=3)
    assert len({(t.enrolment, t.test) for t in found}) == len(found) == wanted
    assert sum(t.target for t in found) == targets
    assert all(everything[t.enrolment, t.test] == t.target for t in found)
    assert found == all_pairs_trials(CUTS, max_trials=wanted, seed=3)
    assert found != all_pairs_trials(CUTS, max_trials=wanted, seed=4)


def test_a_sample_of_mostly_targets_fills_up_with_them() -> None:
    cuts = [cut(f"a/{u}.wav") for u in range(10)] + [cut("b/0.wav")]
    found = all_pairs_trials(cuts, max_trials=30)
    assert sum(t.target for t in found) == 20
    assert sum(not t.target for t in found) == 10


def test_windows_of_one_recording_can_be_left_out() -> None:
    segments = segment_cuts([cut(f"s{s}/u{u}.wav", 6.0) for s in range(2) for u in range(2)], 3.0)
    assert sum(t.target for t in all_pairs_trials(segments)) == 2 * 6
    without = all_pairs_trials(segments, same_recording=False)
    assert sum(t.target for t in without) == 2 * 4
    assert sum(not t.target for t in without) == 16


@pytest.mark.parametrize("ids", [[], ["a/1"], ["a/1", "a/2"], ["a/1", "b/1"]])
def test_corpora_without_both_classes(ids: list[str]) -> None:
    with pytest.raises(InputError, match="target and non-target pairs"):
        all_pairs_trials([cut(name) for name in ids])


def test_a_trial_may_carry_a_groups_name(tmp_path: Path) -> None:
    trials = [Trial(True, "a/1", "a/2", group="female"), Trial(False, "a/1", "b/1")]
    write_trials(trials, tmp_path / "list.txt")
    assert (tmp_path / "list.txt").read_text() == "1 a/1 a/2 female\n0 a/1 b/1\n"
    assert [trial.group for trial in read_trials(tmp_path / "list.txt")] == ["female", ""]
    (tmp_path / "list.txt").write_text("1 a b female older\n")
    with pytest.raises(InputError, match=r"list.txt:1: expected `1 <enrolment> <test>`"):
        read_trials(tmp_path / "list.txt")
