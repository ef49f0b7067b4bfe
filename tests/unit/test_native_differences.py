"""Tables of native differences, and the probes against arithmetic written out here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bench.native import probes
from bench.native.differences import KNOBS, difference_rows, differences_json, print_differences
from bench.native.probes import Convolution


def test_rows_hold_each_backends_value_and_whether_they_differ() -> None:
    rows = difference_rows(
        {
            "torch": {"channels": "RGB", "batch_norm_layers": 53, "threads": 2},
            "keras-tensorflow": {"channels": "BGR", "batch_norm_layers": 53, "threads": 1},
        }
    )
    assert rows == [
        {
            "knob": "channels",
            "meaning": KNOBS["channels"],
            "values": {"torch": "RGB", "keras-tensorflow": "BGR"},
            "differs": True,
        },
        {
            "knob": "batch_norm_layers",
            "meaning": KNOBS["batch_norm_layers"],
            "values": {"torch": 53, "keras-tensorflow": 53},
            "differs": False,
        },
    ]


def test_a_setting_that_one_backend_lacks_differs() -> None:
    (row,) = difference_rows({"torch": {"layout": "channels_first"}, "keras-jax": {}})
    assert row["values"] == {"torch": "channels_first", "keras-jax": None}
    assert row["differs"]


def test_the_table_shows_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    rows = difference_rows(
        {
            "torch": {"channels": "RGB", "layout": "x"},
            "keras-jax": {"channels": "BGR", "layout": "x"},
        }
    )
    table = {"backbone": "resnet50", "px": 64, "optimizer": "sgd", "policy": "freeze_all",
              "weights": "random", "unavailable": {}, "rows": rows}  # fmt: skip
    alone = {
        **table,
        "unavailable": {"keras-jax": "no jax"},
        "rows": difference_rows({"torch": {}}),
    }
    print_differences([table, alone])
    printed = capsys.readouterr().out
    assert "BGR" in printed
    assert "layout" not in printed
    assert "1 of 2 settings are the same" in printed
    assert "keras-jax: unavailable: no jax" in printed
    assert "nothing to compare" in printed
    document = {"mode": "native", "passed": None, "pairs": [], "ledgers": [table]}
    assert differences_json([table]) == document


def test_pixels_tell_the_channels() -> None:
    mean = np.array([103.9, 116.8, 123.7])
    bgr = [np.array(p[::-1], float) - mean for p in probes.PIXELS]
    assert probes.describe_pixels([list(p) for p in bgr]) == {
        "channels": "BGR",
        "black_pixel": "-103.9, -116.8, -123.7",
        "white_pixel": "151.1, 138.2, 131.3",
    }
    rgb = [np.array(p, float) / 255 for p in probes.PIXELS]
    assert probes.describe_pixels([list(p) for p in rgb])["channels"] == "RGB"


def test_strides_and_biases_are_counted() -> None:
    convolutions = [
        Convolution((7, 7), (2, 2), "3+3", True),
        Convolution((1, 1), (2, 2), "0+0", False),
        Convolution((1, 1), (2, 2), "0+0", False),
        Convolution((3, 3), (1, 1), "1+1", False),
    ]
    assert probes.describe_convolutions(convolutions) == {
        "strided_convolutions": "2 of 1×1 by 2; 1 of 7×7 by 2",
        "strided_padding": "2 of 1×1 0+0; 1 of 7×7 3+3",
        "convolution_biases": "1 of 4",
    }


@pytest.mark.parametrize(("ddof", "word"), [(0, "biased"), (1, "unbiased")])
@pytest.mark.parametrize("share", [0.1, 0.01, 0.001])
def test_the_running_variance(ddof: int, word: str, share: float) -> None:
    found = (1 - share) + share * float(probes.variance_values().var(ddof=ddof))
    assert probes.describe_variance(float(np.float32(found)), share) in (word, "unknown")
    assert probes.describe_variance(found, share) == word
    assert probes.describe_variance(found + 0.7 * share, share) == "unknown"


def _sgd(folded: bool, coupled: bool) -> probes.Trajectory:
    def trajectory(
        start: float, gradients: Sequence[float], rates: Sequence[float], decay: float
    ) -> list[float]:
        w, velocity, found = start, 0.0, []
        for g, rate in zip(gradients, rates, strict=True):
            if coupled:
                g += decay * w
            else:
                w -= rate * decay * w
            velocity = 0.9 * velocity + (rate * g if folded else g)
            w -= velocity if folded else rate * velocity
            found.append(w)
        return found

    return trajectory


def test_the_rate_inside_or_outside_the_velocity_and_decay_coupled_or_not() -> None:
    keras, torch = _sgd(folded=True, coupled=False), _sgd(folded=False, coupled=True)
    assert probes.describe_sgd(keras, 0.9) == "the learning rate is inside the velocity"
    assert probes.describe_sgd(torch, 0.9) == "the learning rate multiplies the velocity"
    assert probes.describe_sgd(torch, 0.5) == "unknown"
    assert probes.describe_decay(keras).startswith("decoupled")
    assert probes.describe_decay(torch).startswith("coupled")


@pytest.mark.parametrize(("corrected", "words"), [(True, "corrected"), (False, "uncorrected")])
@pytest.mark.parametrize("epsilon", [1e-8, 1e-7])
def test_the_side_of_adams_epsilon(corrected: bool, words: str, epsilon: float) -> None:
    def trajectory(
        start: float, gradients: Sequence[float], rates: Sequence[float], decay: float
    ) -> list[float]:
        (g,), (rate,) = gradients, rates
        root = (0.001 * g * g) ** 0.5
        scale = 0.001**0.5
        step = g / (root / scale + epsilon) if corrected else g * scale / (root + epsilon)
        return [start - rate * step]

    said = probes.describe_adam(trajectory, epsilon, 0.999)
    assert said == f"epsilon is added to the {words} root"


def test_numbers_of_a_head() -> None:
    kernel = np.array([[0.5, -1.0], [0.0, 1.0]])
    assert probes.describe_head(kernel, np.zeros(2)) == {
        "head_kernel": "within ±1, standard deviation 0.74",
        "head_bias": "zeros",
    }
    assert probes.describe_head(kernel, None)["head_bias"] == "none"
