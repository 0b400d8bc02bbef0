"""Checkpoints in the toolkit's key layout against a forward that knows nothing of VoxPress's networks."""

import os
from pathlib import Path

import pytest
import torch
import yaml

from pipeline.artifact.decode import decode
from pipeline.errors import InputError
from pipeline.models.store import HEAD_FILE, read_pretrained
from pipeline.models.wespeaker import import_wespeaker
from pipeline.quantize.apply import press
from tests.pipeline.models.toolkit import BASIC, BOTTLENECK, State, gemini_state, resnet_state, toolkit_embedding

ROOT = Path(__file__).resolve().parents[3]
TRAINED = Path(os.environ.get("VOXPRESS_MODELS") or ROOT.parent / "shared" / "models") / "resnet34_librispeech_mini.pt"

# As the toolkit writes it beside a checkpoint: what matters here and some that does not.
CONFIG = {
    "model": "ResNet18",
    "model_args": {"feat_dim": 40, "embed_dim": 12, "pooling_func": "TSTP", "two_emb_layer": False},
    "dataset_args": {
        "resample_rate": 16000,
        "speed_perturb": True,
        "fbank_args": {"num_mel_bins": 40, "frame_length": 25, "frame_shift": 10, "dither": 1.0},
    },
    "num_epochs": 150,
}


def _resnet18(**changes: torch.Tensor | None) -> State:
    state: State = resnet_state(BASIC, (2, 2, 2, 2), base=4, mel=40, embedding=12)
    for name, value in changes.items():
        key = name.replace("__", ".")
        if value is None:
            del state[key]
        else:
            state[key] = value
    return state


def _import(tmp_path: Path, content: object, architecture: str = "resnet18", config: object = None):
    torch.save(content, tmp_path / "avg_model.pt")
    if config is not None:
        (tmp_path / "config.yaml").write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    return import_wespeaker(
        tmp_path / "avg_model.pt",
        architecture=architecture,
        config=None if config is None else tmp_path / "config.yaml",
        out=tmp_path / "model",
    )


def _same(got: torch.Tensor, wanted: torch.Tensor) -> None:
    assert float((got.double() - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())
    spread = float(wanted.std(dim=0).mean())
    assert spread > 1e-3 * float(wanted.abs().max()), "embeddings that hardly depend on the features show nothing"


def _check(tmp_path: Path, state: State, architecture: str, mel: int) -> None:
    imported = _import(tmp_path, state, architecture)
    model = read_pretrained(tmp_path / "model")
    assert model.header == imported.header
    features = torch.randn(3, 50, mel, generator=torch.Generator().manual_seed(1))
    wanted = toolkit_embedding(state, features)
    with torch.no_grad():
        _same(model.network(features), wanted)
    artifact = press(
        model.network,
        name="net",
        architecture=architecture,
        frontend=model.frontend,
        created_by="tests",
        source_sha256=model.sha256,
    )
    _same(decode(artifact)(features), wanted)


@pytest.mark.parametrize("two_layers", [False, True])
@pytest.mark.parametrize(
    ("architecture", "kind", "blocks"),
    [("resnet18", BASIC, (2, 2, 2, 2)), ("resnet34", BASIC, (3, 4, 6, 3)), ("resnet50", BOTTLENECK, (3, 4, 6, 3))],
)
def test_embeddings_of_a_resnet_are_the_toolkits(
    tmp_path: Path, architecture: str, kind: str, blocks: tuple[int, int, int, int], two_layers: bool
) -> None:
    state = resnet_state(kind, blocks, base=4, mel=80, embedding=12, two_layers=two_layers)
    _check(tmp_path, state, architecture, 80)


@pytest.mark.parametrize("two_layers", [False, True])
@pytest.mark.parametrize(
    ("architecture", "blocks"), [("gemini-dfresnet60", (3, 3, 9, 3)), ("gemini-dfresnet114", (3, 3, 27, 3))]
)
def test_embeddings_of_a_gemini_dfresnet_are_the_toolkits(
    tmp_path: Path, architecture: str, blocks: tuple[int, int, int, int], two_layers: bool
) -> None:
    state = gemini_state(blocks, base=4, mel=80, embedding=12, two_layers=two_layers)
    _check(tmp_path, state, architecture, 80)


@pytest.mark.skipif(not TRAINED.is_file(), reason=f"no trained model: {TRAINED} is not there (set VOXPRESS_MODELS)")
def test_a_trained_checkpoint(tmp_path: Path) -> None:
    imported = import_wespeaker(TRAINED, architecture="resnet34", config=None, out=tmp_path / "model")
    assert imported.parameters == 6634336
    spec = imported.header.spec
    assert (spec.base_channels, spec.num_mel_bins, spec.embedding_dim, spec.embedding_layers) == (32, 80, 256, 1)
    features = torch.randn(2, 120, 80, generator=torch.Generator().manual_seed(2))
    wanted = toolkit_embedding(torch.load(TRAINED, weights_only=True), features)
    with torch.no_grad():
        _same(read_pretrained(tmp_path / "model").network(features), wanted)


def test_sizes_are_read_from_shapes(tmp_path: Path) -> None:
    spec = _import(tmp_path, _resnet18()).header.spec
    assert (spec.base_channels, spec.num_mel_bins, spec.embedding_dim, spec.embedding_layers) == (4, 40, 12, 1)
    assert read_pretrained(tmp_path / "model").frontend.num_mel_bins == 40


@pytest.mark.parametrize("name", ["ResNet18", "resnet18", "RESNET_18"])
def test_the_toolkits_names_are_known(tmp_path: Path, name: str) -> None:
    assert _import(tmp_path, _resnet18(), name).header.spec.architecture == "resnet18"


def test_the_classifier_is_dropped_and_said_so(tmp_path: Path) -> None:
    imported = _import(tmp_path, _resnet18(projection__weight=torch.zeros(7, 12), projection__bias=torch.zeros(7)))
    assert imported.notes[:-1] == (
        "dropped the classifier: projection.weight [7, 12]",
        "dropped the classifier: projection.bias [7]",
    )
    assert imported.notes[-1].startswith("no --yaml: ")
    assert not (tmp_path / "model" / HEAD_FILE).exists()


def test_averaged_and_half_precision_checkpoints(tmp_path: Path) -> None:
    state = {key: value / 3 if key.endswith("num_batches_tracked") else value for key, value in _resnet18().items()}
    _import(tmp_path, state)
    _import(tmp_path, {key: value.half() for key, value in state.items()})
    assert read_pretrained(tmp_path / "model").network.seg_1.weight.dtype == torch.float32
    _import(tmp_path, {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")})


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"layer2__0__bn1__weight": None}, "found no layer2.0.bn1.weight"),
        ({"layer2__9__bn1__weight": torch.zeros(1)}, "found an extra layer2.9.bn1.weight"),
        ({"layer2__0__bn7__num_batches_tracked": torch.zeros(1)}, "found an extra layer2.0.bn7.num_batches_tracked"),
        ({"layer2__0__bn1__weight": torch.zeros(9)}, r"expected layer2.0.bn1.weight \[8\], found \[9\]"),
        ({"conv1__weight": None}, "expected the tensors of a resnet18, found no conv1.weight"),
        ({"conv1__weight": torch.zeros(4)}, "expected conv1.weight of 4 dimensions"),
        ({"conv1__weight": torch.zeros(999, 1, 3, 3)}, "base_channels"),
        ({"seg_1__weight": None}, "found no seg_1.weight"),
        ({"seg_1__weight": torch.zeros(12, 321)}, "expected seg_1.weight with a multiple of 64 inputs"),
        ({"seg_2__weight": torch.zeros(12, 12)}, "found no seg_2.bias"),
        ({"pool__linear1__weight": torch.zeros(1)}, "expected TSTP pooling, .* found pool.linear1.weight"),
        ({"bn1__bias": torch.zeros(4, dtype=torch.int64)}, "expected bn1.bias of floats"),
        ({"bn1__bias": torch.full((4,), float("nan"))}, "expected bn1.bias finite"),
        ({"bn1__bias": torch.zeros(4).to_sparse()}, "expected bn1.bias of floats"),
    ],
)
def test_every_key_is_accounted_for(tmp_path: Path, changes: dict[str, torch.Tensor | None], found: str) -> None:
    with pytest.raises(InputError, match=found) as caught:
        _import(tmp_path, _resnet18(**changes))
    assert str(caught.value).startswith(str(tmp_path / "avg_model.pt"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("architecture", ["resnet34", "resnet10", "resnet50", "gemini-dfresnet60", "dfresnet56"])
def test_the_wrong_architecture_is_told_the_right_one(tmp_path: Path, architecture: str) -> None:
    with pytest.raises(InputError, match=rf"{architecture}, found .*; these are the keys of a resnet18$"):
        _import(tmp_path, _resnet18(), architecture)


def test_another_toolkits_network(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tensors of a resnet18, found no bn1.bias \(\d+ missing, 1 extra\)$"):
        _import(tmp_path, {"layer1.conv.weight": torch.zeros(512, 80, 5)})
    with pytest.raises(InputError, match=r"--arch: expected one of resnet10, .* found ECAPA_TDNN"):
        _import(tmp_path, _resnet18(), "ECAPA_TDNN")


def _config(section: str | None = None, **changes: object) -> dict:
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in CONFIG.items()}
    place = config
    for name in section.split(".") if section else ():
        place[name] = dict(place[name])
        place = place[name]
    place.update(changes)
    return config


def test_a_configuration_that_agrees(tmp_path: Path) -> None:
    imported = _import(tmp_path, _resnet18(), config=CONFIG)
    assert imported.notes == ("trained with dither 1; features are computed without",)
    assert imported.frontend == read_pretrained(tmp_path / "model").frontend
    assert (imported.frontend.window, imported.frontend.dither) == ("hamming", 0.0)


def test_a_configuration_is_followed(tmp_path: Path) -> None:
    config = _config("dataset_args", resample_rate=8000, fbank_args={"frame_length": 20, "window_type": "povey"})
    frontend = _import(tmp_path, _resnet18(), config=config).frontend
    assert (frontend.sample_rate_hz, frontend.frame_length_ms, frontend.window) == (8000, 20.0, "povey")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (_config(model="ResNet34"), "expected model resnet18, as --arch says, found ResNet34"),
        (_config("model_args", feat_dim=80), "model_args.feat_dim 40, as the checkpoint has it, found 80"),
        (_config("model_args", embed_dim=256), "model_args.embed_dim 12, .* found 256"),
        (_config("model_args", two_emb_layer=True), "model_args.two_emb_layer False, .* found True"),
        (_config("model_args", pooling_func="ASTP"), "expected model_args.pooling_func TSTP, .* found ASTP"),
        (_config("dataset_args.fbank_args", num_mel_bins=80), "fbank_args.num_mel_bins 40, .* found 80"),
        (_config("dataset_args.fbank_args", window_type="blackman"), "window: Input should be 'hamming'"),
        (_config("dataset_args", frontend="s3prl"), "expected dataset_args.frontend fbank, .* found s3prl"),
        (_config("dataset_args", cmvn=False), "normalised by their mean only .* found cmvn False"),
        (_config("dataset_args", cmvn_args={"norm_var": True}), "normalised by their mean only .* norm_var True"),
        (_config("model_args", feat_dim="many"), "model_args.feat_dim: Input should be a valid integer"),
        (["a", "list"], "valid dictionary"),
        ("", "valid dictionary"),
        ("model: [unclosed", "expected the toolkit's configuration in YAML"),
        ("model: !!python/object/apply:os.mkdir [trapped]", "expected the toolkit's configuration in YAML"),
        ("[" * 5000, "expected the toolkit's configuration in YAML"),
    ],
)
def test_a_configuration_that_does_not(tmp_path: Path, config: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        _import(tmp_path, _resnet18(), config=config)
    assert str(caught.value).startswith(str(tmp_path / "config.yaml"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    torch.save(_resnet18(), tmp_path / "c.pt")
    with pytest.raises(InputError, match=r"nowhere\.yaml: .* found no such file"):
        import_wespeaker(
            tmp_path / "c.pt", architecture="resnet18", config=tmp_path / "nowhere.yaml", out=tmp_path / "model"
        )


def test_only_a_model_or_an_empty_folder_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "model"
    out.mkdir()
    _import(tmp_path, _resnet18())
    _import(tmp_path, _resnet18())
    (out / "model.json").unlink()
    with pytest.raises(InputError, match=r"expected a new or empty folder, .* found other files in it"):
        _import(tmp_path, _resnet18())
    assert (out / "model.safetensors").is_file()
