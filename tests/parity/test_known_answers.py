"""The packaged networks classify scikit-image's photographs correctly in both frameworks.

Wrong preprocessing, a wrong order of layers or a wrong memory layout would fail.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy.special import softmax

from tests.frameworks import BACKENDS, logits, packaged_blueprint

# Class numbers of ImageNet (ILSVRC 2012, in the order of torchvision's metadata).
ESPRESSO, TRIPOD = 967, 872
CATS = range(281, 286)  # tabby, tiger cat, Persian, Siamese, Egyptian
PACKAGED = {
    "efficientnet_lite0": 224,
    "efficientnet_lite1": 240,
    "efficientnet_lite2": 260,
    "squeezenet1_1": 224,
}
PHOTOS = ("coffee", "chelsea", "camera")

Probabilities = dict[str, npt.NDArray[np.float32]]


def photographs(px: int) -> npt.NDArray[np.uint8]:
    spec = importlib.util.find_spec("skimage")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "data"
    images = []
    for name in PHOTOS:
        image = Image.open(folder / f"{name}.png").convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        images.append(np.asarray(square.resize((px, px), Image.Resampling.BILINEAR)))
    return np.stack(images)


@pytest.fixture(scope="module", params=BACKENDS)
def seen(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared_cache: Path
) -> Probabilities:
    items = {
        name: (packaged_blueprint(name, px, shared_cache), photographs(px))
        for name, px in PACKAGED.items()
    }
    folder = tmp_path_factory.mktemp("answers")
    return {n: softmax(v, axis=1) for n, v in logits(request.param, items, folder).items()}


@pytest.mark.parametrize("network", PACKAGED)
def test_coffee_is_espresso(seen: Probabilities, network: str) -> None:
    coffee = seen[network][0]
    assert int(np.argmax(coffee)) == ESPRESSO
    assert coffee[ESPRESSO] > 0.6


@pytest.mark.parametrize("network", PACKAGED)
def test_chelsea_is_a_cat(seen: Probabilities, network: str) -> None:
    chelsea = seen[network][1]
    assert int(np.argmax(chelsea)) in CATS
    assert chelsea[list(CATS)].sum() > 0.6


def test_camera_stands_on_a_tripod(seen: Probabilities) -> None:
    assert seen["efficientnet_lite0"][2][TRIPOD] > 0.8
