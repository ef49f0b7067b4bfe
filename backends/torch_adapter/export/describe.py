"""Entries of networks that the catalogue lacks, made from what their library reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torchvision
from torch import nn

from backends.torch_adapter.export import user_code
from backends.torch_adapter.export.blueprint_export import CheckTraining, check_can_be_rebuilt
from backends.torch_adapter.export.constructors import AUXILIARY, construct_on_meta
from backends.torch_adapter.export.stages import find_stages
from backends.torch_adapter.export.usable import usable_logits
from bench.errors import Unavailable, UserError, choose
from bench.spec.backbone import HALF, LEAST_PX, BackboneEntry, WeightsSource, standardised

PRETRAINED = "IMAGENET1K_V1"
"""Name of the torchvision weights that the catalogue uses."""
LICENCES = {
    "apache-2.0": "Apache-2.0",
    "bsd-3-clause": "BSD-3-Clause",
    "mit": "MIT",
    "https://github.com/facebookresearch/SWAG/blob/main/LICENSE": "CC-BY-NC-4.0",
}
"""Licence as a library names it → SPDX identifier; others stay as the library names them."""
TIMM_RELEASES = (
    "https://github.com/huggingface/pytorch-image-models/releases/",
    "https://github.com/rwightman/pytorch-image-models/releases/",
)
"""Prefixes of addresses whose files use timm's own tensor names."""


def describe(name: str, check_training: CheckTraining) -> BackboneEntry:
    """Describe ``torchvision:NAME``, ``timm:NAME`` or ``module:FILE:FUNCTION``; a user's own
    network is checked by ``check_training``, too.

    Raises:
        UserError: The library lacks the network, or it does not classify images.
        Unavailable: The library is not installed.
    """
    library, _, model = name.partition(":")
    if library == "module":
        return _user_code(name, model, check_training)
    return DESCRIBERS[library](name, model)


def list_models() -> list[str]:
    """Return the names of all classification networks of the installed torchvision."""
    return [
        f"torchvision:{name}" for name in torchvision.models.list_models(module=torchvision.models)
    ]


def _torchvision(name: str, model: str) -> BackboneEntry:
    known = torchvision.models.list_models(module=torchvision.models)
    choose("network of torchvision", model, known)
    weights = _choose_weights(list(torchvision.models.get_model_weights(model)))
    transforms = weights.transforms()
    # With weights, torchvision's builder lets these two turn ImageNet's standardisation into
    # (x / 255 - 0.5) / 0.5 (transform_input); HALF is both steps in one.
    expects = HALF if model in AUXILIARY else standardised(transforms.mean, transforms.std)
    source = WeightsSource(
        kind="download",
        distribution="torchvision",
        location=weights.url,
        sha256=_sha256_prefix(weights.url),
        licence=_licence(weights.meta.get("license", "BSD-3-Clause")),
        preprocessing=expects,
    )
    entry = BackboneEntry(
        library="torchvision",
        model=model,
        native_px=transforms.crop_size[0],
        min_px=LEAST_PX,
        stages=(),
        sources=(source,),
        preprocessing=expects,
    )
    return _completed(name, entry, construct_on_meta(entry))


def _choose_weights(entries: list[Any]) -> Any:
    """Return the first ImageNet weights, else (SWAG) those with the smallest input."""
    named = [w for w in entries if w.name == PRETRAINED]
    return (named or sorted(entries, key=lambda w: int(w.transforms().crop_size[0])))[0]


def _timm(name: str, model: str) -> BackboneEntry:
    try:
        import timm
    except ImportError as error:
        raise Unavailable(f"{name} needs timm: pip install timm") from error
    plain, dot, _ = model.partition(".")
    choose("network of timm", plain, timm.list_models(), "timm.list_models() returns all of them.")
    tagged = timm.list_models(f"{plain}.*", pretrained=True)
    if dot:
        choose(f"weights of timm's {plain}", model, tagged)
    configuration = timm.models.get_pretrained_cfg(model)
    if configuration is None:
        configuration = timm.models.PretrainedCfg()
    if configuration.num_classes == 0:
        raise UserError(f"{name} has no classifier: it returns features.")
    expects = standardised(configuration.mean, configuration.std)  # type: ignore[arg-type]
    entry = BackboneEntry(
        library="timm",
        model=model,
        native_px=configuration.input_size[-1],
        min_px=LEAST_PX,
        stages=(),
        sources=_timm_sources(configuration, expects),
        preprocessing=expects,
    )
    return _completed(name, entry, construct_on_meta(entry))


def _timm_sources(configuration: Any, expects: Any) -> tuple[WeightsSource, ...]:
    common = {
        "distribution": "timm",
        "licence": _licence(configuration.license or "unknown"),
        "preprocessing": expects,
    }
    sources = []
    if configuration.hf_hub_id:
        file = configuration.hf_hub_filename or "model.safetensors"
        address = f"https://huggingface.co/{configuration.hf_hub_id}/resolve/main/{file}"
        sources.append(WeightsSource(kind="hub", location=address, sha256="", **common))
    url = configuration.url or ""
    if url.startswith(TIMM_RELEASES) and url.endswith(".pth") and _sha256_prefix(url):
        sources.append(
            WeightsSource(kind="download", location=url, sha256=_sha256_prefix(url), **common)
        )
    return tuple(sources)


def _user_code(name: str, model: str, check_training: CheckTraining) -> BackboneEntry:
    file, _, function = model.rpartition(":")
    module, code = user_code.describe(Path(file), function)
    px = user_code.input_px(module, code.name)
    entry = BackboneEntry(
        library="module",
        model=code.name,
        native_px=px,
        min_px=LEAST_PX,
        stages=(),
        sources=(),
        preprocessing=user_code.preprocessing(module, code.name),
        code=code,
    )
    entry = _completed(f"module:{code.name}", entry, module)
    check_can_be_rebuilt(module, f"module:{code.name}", entry, check_training)
    return entry


DESCRIBERS = {"torchvision": _torchvision, "timm": _timm}


def _sha256_prefix(address: str) -> str:
    """Return the first digits of the file's SHA-256, part of its name by torch.hub's convention."""
    digits = address.rpartition("/")[2].removesuffix(".pth").rpartition("-")[2]
    return digits if len(digits) >= 8 and set(digits) <= set("0123456789abcdef") else ""


def _licence(name: str) -> str:
    return LICENCES.get(name, name)


def _completed(name: str, entry: BackboneEntry, module: nn.Module) -> BackboneEntry:
    """Return the entry with stages and the range of input sizes.

    Raises:
        UserError: The network cannot be used, or not at its own input size.
    """
    px = entry.native_px
    logits = usable_logits(module, px, name)
    found = {
        "stages": find_stages(module, px, logits.shape[1], name),
        "min_px": _least_px(module, px),
        "fixed_px": not _takes(module, px + 32),
    }
    return BackboneEntry.model_validate({**entry.model_dump(), **found})


def _least_px(module: nn.Module, px: int) -> int:
    """Return the smallest input size from ``LEAST_PX`` to ``px`` that a network takes."""
    low, high = min(LEAST_PX, px), px
    if _takes(module, low):
        return low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _takes(module, middle) else (middle, high)
    return high


def _takes(module: nn.Module, px: int) -> bool:
    """Return True if a network has logits for images of ``px``."""
    try:
        usable_logits(module, px, "")
    except UserError:
        return False
    return True
