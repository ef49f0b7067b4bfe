"""Native mode without any framework: names, weights, planning, tables."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.rows import rows_of
from bench.catalog.backbones import BACKBONES
from bench.data import Dataset
from bench.errors import Unavailable, UserError
from bench.native import weights as native_weights
from bench.native.applications import (
    APPLICATIONS,
    application_of,
    is_keras,
    keras_models_folder,
    resize_of,
    why_not_native,
)
from bench.native.weights import native_ref, native_weights_from_file
from bench.report.notes import footnotes, mismatches
from bench.report.tables.runs import standard_table
from bench.runner import planner
from bench.runner.planner import PlannedRun, Planner
from bench.runner.suite import Options, Suite, apply_options, grid_points
from bench.spec.run import RunSpec
from bench.storage.results import StoredRun
from bench.workers.process import Interpreters

MakeRun = Callable[..., StoredRun]
RESNET = APPLICATIONS["resnet50"]
ENTRY = BACKBONES["resnet50"]
BOTH = ("torch", "keras-tensorflow")


@pytest.fixture(autouse=True)
def keras_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache of Keras; fail if a test asks the network."""

    def refuse(*args: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(native_weights, "download_file", refuse)
    (tmp_path / "keras" / "models").mkdir(parents=True)
    return tmp_path / "keras" / "models"


def test_names_of_torchvision_lead_to_keras_applications() -> None:
    assert application_of("torchvision:densenet121") == APPLICATIONS["densenet121"]
    assert application_of("resnet50") == RESNET
    assert application_of("alexnet") is None
    assert application_of("timm:resnet50") is None


@pytest.mark.parametrize(
    ("backbone", "constructor"),
    [
        ("timm:convnext_xlarge", "ConvNeXtXLarge"),
        ("timm:inception_resnet_v2", "InceptionResNetV2"),
        ("timm:legacy_xception", "Xception"),
        ("timm:mobilenetv1_100", "MobileNet"),
        ("timm:nasnetalarge", "NASNetLarge"),
        ("timm:resnetv2_101", "ResNet101V2"),
        ("timm:tf_efficientnetv2_b3", "EfficientNetV2B3"),
    ],
)
def test_what_torchvision_has_not_goes_by_timms_name(backbone: str, constructor: str) -> None:
    application = application_of(backbone)
    assert application is not None
    assert application.constructor == constructor
    assert application_of(f"{backbone}.tag") is None
    assert application_of(backbone.removeprefix("timm:")) is None


def test_files_are_named_as_keras_names_them() -> None:
    name = APPLICATIONS["timm:nasnetalarge"].file_name(331)
    assert name == "nasnet_large_no_top.h5"
    assert native_ref(APPLICATIONS["timm:nasnetalarge"], 331).source == name
    kernels = "weights_tf_dim_ordering_tf_kernels_notop.h5"
    resnet = APPLICATIONS["timm:resnetv2_50"].location(224)
    assert resnet.endswith(f"/resnet/resnet50v2_{kernels}")
    inception = APPLICATIONS["timm:inception_resnet_v2"].location(224)
    assert inception.endswith(f"/inception_resnet_v2/inception_resnet_v2_{kernels}")


@pytest.mark.parametrize(
    ("backbone", "head", "px", "message"),
    [
        ("alexnet", "linear", 224, "keras.applications has no alexnet; use --mode matched"),
        ("efficientnet_lite0", "linear", 224, "has no efficientnet_lite0"),
        ("resnet50", "original", 224, "no head 'original'"),
        ("torchvision:inception_v3", "linear", 64, "at least 75"),
        ("timm:inception_resnet_v2", "linear", 74, "at least 75"),
        ("timm:legacy_xception", "linear", 70, "at least 71"),
        ("resnet50", "dense:8", 32, None),
    ],
)
def test_what_keras_lacks_is_named(backbone: str, head: str, px: int, message: str | None) -> None:
    reason = why_not_native("keras-tensorflow", backbone, head, px)
    assert (reason is None) if message is None else (reason is not None and message in reason)
    assert why_not_native("torch", backbone, head, px) is None


def test_each_framework_has_its_own_filter_in_native_mode_only() -> None:
    assert [resize_of("native", b) for b in BOTH] == ["antialias", "bilinear"]
    assert {resize_of("matched", b) for b in BOTH} == {"antialias"}
    assert [is_keras(b) for b in BOTH] == [False, True]


def test_mobilenets_have_a_file_for_each_size_that_they_were_trained_at() -> None:
    names = {px: APPLICATIONS["mobilenet_v2"].file_name(px) for px in (96, 100, 224)}
    assert names[100] == names[224] != names[96]
    assert names[96].endswith("_1.0_96_no_top.h5")
    first = {px: APPLICATIONS["timm:mobilenetv1_100"].file_name(px) for px in (96, 128, 224)}
    assert first[96] == first[224] == "mobilenet_1_0_224_tf_no_top.h5"
    assert first[128] == "mobilenet_1_0_128_tf_no_top.h5"
    assert RESNET.file_name(96) == RESNET.file_name(224)


def test_a_file_in_keras_cache_is_found_by_name_and_held_to_its_hash(keras_home: Path) -> None:
    good = replace(RESNET, digest=hashlib.md5(b"good", usedforsecurity=False).hexdigest())
    path = keras_home / good.file_name(224)
    path.write_bytes(b"good")
    found = native_weights.native_weights("resnet50", good, ENTRY, 224)
    assert found.path == path == keras_models_folder() / path.name
    assert found.ref == native_ref(good, 224)
    assert found.ref.kind == "pretrained"
    path.write_bytes(b"bad")
    with pytest.raises(Unavailable, match=r"damaged: its MD5.*--weights random"):
        native_weights.native_weights("resnet50", good, ENTRY, 224)
    sha = replace(RESNET, digest=hashlib.sha256(b"bad").hexdigest())
    assert native_weights.native_weights("resnet50", sha, ENTRY, 224).path == path


def test_weights_that_are_nowhere_say_how_to_get_them(
    keras_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unavailable) as raised:
        native_weights.native_weights("resnet50", RESNET, ENTRY, 224, download=False)
    assert str(keras_home) in str(raised.value)
    assert RESNET.file_name(224) in str(raised.value)

    def fail(address: str, target: Path, digest: str, algorithm: str) -> None:
        assert (address, digest, algorithm) == (RESNET.location(224), RESNET.digest, "md5")
        raise Unavailable("the host cannot be reached")

    monkeypatch.setattr(native_weights, "download_file", fail)
    with pytest.raises(Unavailable, match="cannot be reached"):
        native_weights.native_weights("resnet50", RESNET, ENTRY, 224)


def test_a_users_file_must_be_hdf5(tmp_path: Path) -> None:
    mine = tmp_path / "mine.weights.h5"
    mine.write_bytes(b"x")
    assert native_weights_from_file(ENTRY, mine).ref.source == "mine.weights.h5"
    other = tmp_path / "mine.pth"
    other.write_bytes(b"x")
    with pytest.raises(Unavailable, match="HDF5"):
        native_weights_from_file(ENTRY, other)
    with pytest.raises(UserError, match="does not exist"):
        native_weights_from_file(ENTRY, tmp_path / "none.h5")


def _suite(**grid: Any) -> Suite:
    grid = {"dataset": "folder:x", "policies": ["freeze_all"], **grid}
    return Suite.model_validate({"name": "t", "backends": BOTH, "grid": [grid]})


def test_a_suite_and_the_command_line_multiply_by_mode() -> None:
    suite = _suite(mode=["matched", "native"])
    found = [(c.mode, c.backend) for c in grid_points(suite)]
    assert found == [(mode, b) for mode in ("matched", "native") for b in BOTH]
    narrowed = apply_options(_suite(), Options(mode=["native", "matched"]))
    assert [c.mode for c in grid_points(narrowed)] == ["native"] * 2 + ["matched"] * 2
    with pytest.raises(UserError, match="Did you mean 'native'"):
        apply_options(_suite(), Options(mode=["nativ"]))


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, make_environment: Any) -> Callable[..., list[PlannedRun]]:
    def open_data(name: str, *args: Any, **more: Any) -> Dataset:
        return Dataset(name, "00", ("a", "b"), 100, 10, 10, None)  # type: ignore[arg-type]

    packages = dict.fromkeys(("torch", "torchvision", "keras", "tensorflow"), "1")
    monkeypatch.setattr(planner, "open_dataset", open_data)
    monkeypatch.setattr(
        planner,
        "environment_of",
        lambda backend, device, python: make_environment(backend=backend, packages=packages),
    )

    def planned(choices: dict[str, str] | None = None, **grid: Any) -> list[PlannedRun]:
        here = Interpreters({})
        return Planner(here, choices or {}, "cpu", download=False, cache=Path("unused")).plan(
            _suite(**grid)
        )

    return planned


def test_matched_and_native_runs_are_planned_apart(
    plan: Callable[..., list[PlannedRun]],
) -> None:
    runs = plan({"": "random"}, backbones=["resnet50"], mode=["matched", "native"])
    assert [(r.spec.mode, r.spec.backend, r.unavailable) for r in runs] == [
        (mode, backend, None) for mode in ("matched", "native") for backend in BOTH
    ]
    assert len({r.spec.run_id for r in runs}) == 4
    assert ["native" in r.spec.run_id for r in runs] == [False, False, True, True]


def test_native_keras_looks_for_keras_own_weights(
    plan: Callable[..., list[PlannedRun]], keras_home: Path
) -> None:
    grid = {"backbones": ["mobilenet_v2"], "mode": ["native"]}
    torch, keras = plan(**grid)
    name = APPLICATIONS["mobilenet_v2"].file_name(96)
    assert keras.spec.weights.source == name
    assert torch.spec.weights.source == "mobilenet_v2-b0353104.pth"
    assert keras.unavailable is not None
    assert name in keras.unavailable
    (keras_home / name).write_bytes(b"anything: Keras has no hash of this file")
    torch, again = plan(**grid)
    assert again.unavailable is None
    assert again.weights is not None
    assert again.weights.path == keras_home / name
    assert again.spec == keras.spec, "a run is the same whether its weights were found or not"


def test_native_rows_of_what_keras_has_not_say_so(plan: Callable[..., list[PlannedRun]]) -> None:
    torch, keras = plan({"": "random"}, backbones=["alexnet"], mode=["native"])
    assert torch.unavailable is None
    assert keras.unavailable == "keras.applications has no alexnet; use --mode matched"


def test_the_id_of_a_matched_run_is_as_it_was(make_spec: Callable[..., RunSpec]) -> None:
    matched, native = make_spec(), make_spec(mode="native")
    assert (
        matched.run_id
        == "case1-photos-efficientnet-lite0-freeze-all-torch-s0-" + (matched.run_id[-8:])
    )
    assert "freeze-all-native-torch" in native.run_id


def test_native_rows_are_always_labelled(make_run: MakeRun) -> None:
    for runs in ([make_run(mode="native")], [make_run(), make_run(mode="native")]):
        rows = rows_of(runs)
        assert list(standard_table(rows)["mode"]) == [row["mode"] for row in rows]
        assert any(note.startswith("native: ") for note in footnotes(rows))
    rows = rows_of([make_run()])
    assert "mode" not in standard_table(rows).columns
    assert not any(note.startswith("native: ") for note in footnotes(rows))


@pytest.mark.parametrize("modes", [("native", "native"), ("matched", "native")])
def test_native_rows_are_never_pairs(make_run: MakeRun, modes: tuple[str, str]) -> None:
    one, other = {"batches_sha256": "aa"}, {"batches_sha256": "bb"}
    rows = rows_of(
        [make_run(one, mode=modes[0]), make_run(other, mode=modes[1], backend="keras-tensorflow")]
    )
    assert mismatches(rows) == []
