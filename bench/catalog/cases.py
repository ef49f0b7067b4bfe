"""The article's four cases and its words for sizes."""

from __future__ import annotations

from bench.spec.run import Similarity, Size

SIZE_BOUNDS: tuple[int, int] = (1_000, 10_000)
"""Most training images of a small and of a medium data set. The article gives no numbers; these are
the defaults for a user's own data, and ``size_bounds`` in a suite overrides them."""
CASES: dict[int, tuple[Size, Similarity]] = {
    1: ("small", "similar"),
    2: ("large", "similar"),
    3: ("medium", "similar"),
    4: ("large", "not_similar"),
}
"""Case of the article → size and similarity to the pretraining data."""


def size_of(train_images: int, bounds: tuple[int, int] = SIZE_BOUNDS) -> Size:
    """Return the article's word for a number of training images."""
    if train_images <= bounds[0]:
        return "small"
    return "medium" if train_images <= bounds[1] else "large"
