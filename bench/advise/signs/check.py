"""Look for all signs that a data set cannot support advice."""

from __future__ import annotations

from bench.advise.advice import Sign
from bench.advise.images import Development
from bench.advise.probes import Probe
from bench.advise.signs.counts import dominant_class, too_few
from bench.advise.signs.labels import wrong_labels
from bench.advise.signs.resemblance import copies, sessions
from bench.advise.signs.shortcuts import shortcuts


def before_probes(data: Development) -> list[Sign]:
    """Return what the images alone show."""
    return [*too_few(data), *dominant_class(data), *copies(data), *sessions(data)]


def after_probes(data: Development, best: Probe) -> list[Sign]:
    """Return what the best probe shows in comparison."""
    return [*wrong_labels(data, best), *shortcuts(data)]
