"""From an artifact to a published bundle and back, by the commands a user types."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from calibration.record import read_calibration
from device_tests.compat import cross_scores
from exporters.bundle.archive import unzip_bundle
from exporters.bundle.manifest import MANIFEST_FILE, Manifest
from exporters.bundle.write import GOLDEN_EMBEDDINGS, list_files
from pipeline.cli import app
from pipeline.corpus.trials import Trial
from pipeline.errors import GateError, InputError, VerificationError, VoxPressError
from pipeline.scoring.score import cosine_scores
from tests.device_tests.released import Voices, bundled, make_voices, nudged, write_tiny
from tests.factories import tiny_artifact

pytestmark = pytest.mark.slow


def voxpress(*words: object, code: int = 0) -> str:
    """Output of a command; `code` is what it must end with."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(done.exception, VoxPressError):
        assert done.exception.exit_code == code, done.exception
        return str(done.exception)
    assert done.exit_code == code, (done.output, done.exception)
    return done.stdout


def facts(*words: object) -> dict[str, Any]:
    return json.loads(voxpress(*words, "--json"))


@dataclass(frozen=True)
class World:
    """What the commands work on."""

    folder: Path
    voices: Voices
    artifact: Path
    calibration: Path
    bundle: Path

    @property
    def trials(self) -> tuple[object, ...]:
        return ("--audio", self.voices.audio, "--trials", self.voices.trials)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("release")
    voices = make_voices(folder)
    artifact, calibration = write_tiny(folder / "artifact"), folder / "calibration"
    words = ("--audio", voices.audio, "--trials", voices.trials)
    voxpress("calibrate", artifact, *words, "--reference", artifact, "--out", calibration)
    return World(folder, voices, artifact, calibration, bundled(artifact, folder / "bundles", calibration))


@pytest.fixture(scope="module")
def other(world: World) -> Path:
    """A bundle of nearly the same network, calibrated by itself."""
    artifact = write_tiny(world.folder / "other", nudged(tiny_artifact(), 1e-6))
    voxpress("calibrate", artifact, *world.trials, "--out", world.folder / "other-calibration")
    return bundled(artifact, world.folder / "others", world.folder / "other-calibration")


@pytest.fixture
def release(world: World, tmp_path: Path) -> tuple[object, ...]:
    """Words that every release here shares; the key is made on the way."""
    voxpress("bundle", "key", tmp_path / "key")
    return (
        *("--registry", tmp_path / "registry", "--cache", tmp_path / "cache", "--out", tmp_path / "releases"),
        *("--key", tmp_path / "key.pem"),
    )


def test_a_calibration_is_of_the_model_it_names(world: World) -> None:
    found = read_calibration(world.calibration)
    assert (found.subject.kind, found.subject.name) == ("artifact", "artifact")
    assert found.trials.target_trials == 48
    assert [entry.needs_trials for entry in found.refused] == [3000, 30000]
    assert found.flips is not None
    assert found.flips.points[0].flips.total == 0  # against itself
    svg = (world.calibration / "calibration.svg").read_text()
    assert svg.startswith("<svg")
    assert "best rising map" in svg


def test_the_same_inputs_give_the_same_bytes(world: World, tmp_path: Path) -> None:
    again = bundled(world.artifact, tmp_path, world.calibration)
    assert again.read_bytes() == world.bundle.read_bytes()


def test_a_bundle_holds_what_the_issue_of_it_needs(world: World) -> None:
    manifest = Manifest.model_validate(facts("bundle", "show", world.bundle))
    assert manifest.primary == "4bit"
    assert {model.format for model in manifest.models} == {"pte", "tflite"}
    assert all(model.ops["voxpress.conv2d"] for model in manifest.models)
    (calibration,) = manifest.calibrations
    assert set(calibration.models) == {model.file for model in manifest.models}
    assert calibration.thresholds == read_calibration(world.calibration).thresholds
    assert "tiny 0.1.0" in voxpress("bundle", "show", world.bundle)


def test_a_bundle_runs_its_golden_vectors(world: World) -> None:
    verdict = facts("bundle", "verify", world.bundle, "--every-runtime")
    assert [result["outcome"] for result in verdict["golden"]] == ["agrees", "agrees"]
    assert "not signed" in voxpress("bundle", "verify", world.bundle)


def test_golden_vectors_that_do_not_hold_are_refused(world: World, tmp_path: Path) -> None:
    unzip_bundle(world.bundle, tmp_path)
    golden = load_file(tmp_path / GOLDEN_EMBEDDINGS)
    save_file({name: 1.001 * value for name, value in golden.items()}, tmp_path / GOLDEN_EMBEDDINGS)
    _seal(tmp_path)
    assert "of the golden ones, found 0.0009" in voxpress(
        "bundle", "verify", tmp_path, code=VerificationError.exit_code
    )


def test_a_model_that_crashes_its_runtime_is_one_line(world: World, tmp_path: Path) -> None:
    """Hashes hold, as whoever made the bundle made them; the model is still none."""
    unzip_bundle(world.bundle, tmp_path)
    path = tmp_path / "models" / "tiny-4bit.pte"
    data = bytearray(path.read_bytes())
    data[64:2000] = b"\xff" * 1936
    path.write_bytes(data)
    _seal(tmp_path)
    assert "tiny-4bit.pte: " in voxpress("bundle", "verify", tmp_path, code=2)


def _seal(folder: Path) -> None:
    manifest = Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    (folder / MANIFEST_FILE).unlink()
    (folder / MANIFEST_FILE).write_bytes(manifest.model_copy(update={"files": list_files(folder)}).json_bytes())


def test_a_calibration_of_another_artifact_is_refused(world: World, other: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected the calibration of an artifact or a model file of this bundle"):
        bundled(world.artifact, tmp_path, world.folder / "other-calibration")


def test_from_first_release_to_fetch(world: World, other: Path, release: tuple[object, ...], tmp_path: Path) -> None:
    first = facts("release", world.bundle, *release, "--note", "Hello.")
    assert (first["version"], first["published"], first["channel_version"]) == ("1.0.0", True, "1.0.0")
    place = ("--registry", tmp_path / "registry", "--cache", tmp_path / "cache", "--key", tmp_path / "key.pub.pem")
    fetched = facts("fetch", "tiny", *place, "--min-version", "1.0.0", "--out", tmp_path / "out")
    assert fetched["signed_by"] == first["signed_by"]
    text = (Path(fetched["folder"]) / "CHANGELOG.md").read_text()
    assert text == "# Changelog\n\n## 1.0.0\n\nFirst: first release.\n\n- Hello.\n"
    assert "# tiny 1.0.0" in (Path(fetched["folder"]) / "MODEL_CARD.md").read_text()

    # The same again changes nothing.
    again = facts("release", world.bundle, *release)
    assert (again["version"], again["published"], again["sha256"]) == ("1.0.0", False, first["sha256"])

    # Other weights: refused without trials, a minor version with them.
    assert "expected trials" in voxpress("release", other, *release, code=GateError.exit_code)
    dry = facts("release", other, *release, *world.trials, "--dry-run")
    assert (dry["version"], dry["published"], dry["channel_version"]) == ("1.1.0", False, "1.0.0")
    second = facts("release", other, *release, *world.trials)
    assert (second["version"], second["bump"], second["sha256"]) == ("1.1.0", "minor", dry["sha256"])
    assert second["compatibility"]["verdict"] == "compatible"
    listed = json.loads(voxpress("registry", "list", tmp_path / "registry", "--json"))
    assert listed == {"tiny": {"versions": ["1.0.0", "1.1.0"], "channels": {"latest": "1.1.0"}}}

    # Repackaged: a patch, on a channel of its own.
    relicensed = bundled(world.folder / "other", tmp_path / "b", world.folder / "other-calibration", licence="MIT")
    third = facts("release", relicensed, *release, "--channel", "beta")
    assert (third["version"], third["bump"], third["reason"]) == ("1.1.1", "patch", "the same network")
    assert facts("fetch", "tiny@latest", *place)["version"] == "1.1.0"
    assert facts("fetch", "tiny@beta", *place)["version"] == "1.1.1"
    log = (tmp_path / "cache" / "tiny").glob("1.1.1-*/CHANGELOG.md")
    assert [line for line in next(log).read_text().splitlines() if line.startswith("## ")] == [
        "## 1.1.1",
        "## 1.1.0",
        "## 1.0.0",
    ]

    # What changed, and the way back.
    diff = facts("bundle", "diff", tmp_path / "releases" / "tiny-1.0.0.zip", tmp_path / "releases" / "tiny-1.1.0.zip")
    assert not diff["same_weights"]
    assert {change["kind"] for change in diff["changes"]} >= {"identity", "bits", "file"}
    voxpress("registry", "channel", tmp_path / "registry", "tiny", "latest", "1.0.0")
    assert facts("fetch", "tiny", *place)["version"] == "1.0.0"


def test_another_network_breaks_enrolled_voices(world: World, release: tuple[object, ...], tmp_path: Path) -> None:
    facts("release", world.bundle, *release)
    stranger = write_tiny(tmp_path / "stranger", tiny_artifact(seed=9))
    voxpress("calibrate", stranger, *world.trials, "--out", tmp_path / "calibration")
    bundle = bundled(stranger, tmp_path / "bundles", tmp_path / "calibration")
    found = facts("compat", world.bundle, bundle, *world.trials)
    assert found["verdict"] != "compatible"
    assert found["across"]["eer"] > max(found["old_alone"]["eer"], found["new_alone"]["eer"])
    assert [point["name"] for point in found["points"]] == ["eer", "min-dcf-0.01"]
    assert facts("release", bundle, *release, *world.trials)["version"] == "2.0.0"


def test_a_bundle_is_compatible_with_itself(world: World) -> None:
    found = facts("compat", world.bundle, world.bundle, *world.trials)
    assert found["verdict"] == "compatible"
    assert found["across"] == found["old_alone"] == found["new_alone"]
    assert found["cosine_mean"] == pytest.approx(1)
    assert (found["loss"]["low"], found["loss"]["high"]) == (0, 0)
    assert "old enrolments keep working" in voxpress("compat", world.bundle, world.bundle, *world.trials)


def test_gates_refuse_with_code_3_and_publish_nothing(
    world: World, release: tuple[object, ...], tmp_path: Path
) -> None:
    (tmp_path / "strict.toml").write_text("[gates]\nmax_eer = 0.0\nmin_speakers = 1000\n")
    said = voxpress("release", world.bundle, *release, "--settings", tmp_path / "strict.toml", code=3)
    assert "2 gate(s) refuse the release: max_eer: expected at most 0, found" in said
    bare = bundled(world.artifact, tmp_path / "bare", licence="unspecified")
    said = voxpress("release", bare, *release, code=3)
    assert "licence: expected one" in said
    assert "calibration: expected one" in said
    assert not (tmp_path / "registry").exists()
    assert not (tmp_path / "releases").exists()


def test_a_rate_that_the_trials_do_not_support_is_refused(world: World, tmp_path: Path) -> None:
    words = ("calibrate", world.artifact, *world.trials, "--out", tmp_path / "calibration")
    said = voxpress(*words, "--far", "0.01", code=3)
    assert said == "far-1%: expected at least 3000 non-target trials (30 false acceptances), found 448"
    assert not (tmp_path / "calibration").exists()
    found = facts(*words, "--far", "0.1")
    assert [point["name"] for point in found["thresholds"]] == ["eer", "far-10%", "min-dcf-0.01"]


def test_a_cohort_is_shipped_with_its_calibration(world: World, tmp_path: Path) -> None:
    voxpress("cohort", world.artifact, "--corpus", world.voices.audio, "--out", tmp_path / "cohort.safetensors")
    found = facts(
        "calibrate",
        world.artifact,
        *world.trials,
        *("--cohort", tmp_path / "cohort.safetensors", "--cohort-top", "4", "--out", tmp_path / "calibration"),
    )
    assert (found["score"], found["cohort"]["speakers"], found["cohort"]["top"]) == ("as-norm", 8, 4)
    bundle = bundled(world.artifact, tmp_path / "bundles", tmp_path / "calibration")
    (entry,) = facts("bundle", "show", bundle)["calibrations"]
    assert entry["cohort"] == "calibration/4bit/cohort.safetensors"


def test_keys_and_trials_come_in_pairs(world: World, release: tuple[object, ...], tmp_path: Path) -> None:
    assert "--key and --unsigned: expected one of them, found both" in voxpress(
        "release", world.bundle, *release, "--unsigned", code=2
    )
    assert "found only --trials" in voxpress("release", world.bundle, *release, *world.trials[2:], code=2)
    assert "--bump: expected major" in voxpress("release", world.bundle, *release, "--bump", "huge", code=2)
    voxpress("bundle", "key", tmp_path / "b")
    copy = tmp_path / "signed.zip"
    copy.write_bytes(world.bundle.read_bytes())
    voxpress("bundle", "sign", copy, "--key", tmp_path / "b.pem")
    assert "found one of key" in voxpress("release", copy, *release, code=2)
    unsigned = [word for word in release if word not in ("--key", tmp_path / "key.pem")]
    assert "expected --key" in voxpress("release", copy, *unsigned, "--unsigned", code=2)
    assert facts("release", world.bundle, *unsigned, "--unsigned")["signed_by"] is None


def test_cross_scores_are_of_the_old_enrolment_and_the_new_test() -> None:
    rng = np.random.default_rng(0)
    old, new = ({name: rng.normal(size=4) for name in "ab"} for _ in range(2))
    trials = [Trial(False, "a", "b"), Trial(False, "b", "a")]
    found = cross_scores(old, new, trials)
    for score, trial in zip(found, trials, strict=True):
        one, other = old[trial.enrolment], new[trial.test]
        assert score == pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    np.testing.assert_allclose(cross_scores(old, old, trials), cosine_scores(old, trials))
