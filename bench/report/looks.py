"""How policies, networks and backends look in the plots, the same in all of them."""

from __future__ import annotations

from collections.abc import Sequence

from bench.catalog.policies import POLICIES
from bench.report.cells import Cell, contestant
from bench.report.figures import COLOURS, GREY, Figure, escaped

SHAPES = ("circle", "square", "triangle-up", "star", "diamond", "cross", "pentagon",
          "triangle-down", "hexagon", "x", "hourglass", "bowtie", "star-diamond",
          "star-triangle-up")  # fmt: skip
"""Of networks; each has the forms of ``FILLS``."""
FILLS = (("", 9), ("-open", 14), ("-open-dot", 19), ("-dot", 9))
"""Of backends, with the size in pixels: where two marks lie on one spot, both are seen."""
FILL_WORDS = ("filled", "open", "open with a dot", "filled with a dot")
DASHES = ("solid", "dash", "dot", "dashdot")
"""Of backends, on lines."""
STRUCK = {"symbol": "x-thin-open", "size": 18, "color": GREY, "line": {"width": 2}}
"""Over marks of which a reader must not compare the speed."""


class Looks:
    """Of each policy its colour, of each network its shape, of each backend its filling."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        known = {name: place for place, name in enumerate(POLICIES)}
        names = sorted({contestant(c) for c in cells}, key=lambda n: (known.get(n, 99), n))
        self._policies = {name: place for place, name in enumerate(names)}
        self._networks = list(dict.fromkeys(c.row["backbone"] for c in cells))
        self._backends = list(dict.fromkeys(c.row["backend"] for c in cells))

    def colour(self, cell: Cell) -> str:
        """Of its policy."""
        return COLOURS[self._policies[contestant(cell)] % len(COLOURS)]

    def dash(self, cell: Cell) -> str:
        """Of its backend."""
        return DASHES[self._backends.index(cell.row["backend"]) % len(DASHES)]

    def marker(self, cell: Cell) -> dict[str, object]:
        """Of all three."""
        return self._marker(self.colour(cell), cell.row["backbone"], cell.row["backend"])

    def _marker(self, colour: str, network: str | None, backend: str | None) -> dict[str, object]:
        shape = 0 if network is None else self._networks.index(network) % len(SHAPES)
        fill = 0 if backend is None else self._backends.index(backend) % len(FILLS)
        ending, size = FILLS[fill]
        line = {"width": 2 if ending else 0}
        return {"color": colour, "symbol": SHAPES[shape] + ending, "size": size, "line": line}

    def legend(self, cells: Sequence[Cell]) -> list[Figure]:
        """Entries for colours; for shapes and fillings where there are several."""
        policies = {contestant(c): self.colour(c) for c in cells}
        found = [
            _entry(name, self._marker(policies[name], None, None), name)
            for name in sorted(policies, key=lambda n: self._policies[n])
        ]
        networks = dict.fromkeys(c.row["backbone"] for c in cells)
        backends = dict.fromkeys(c.row["backend"] for c in cells)
        if len(networks) > 1:
            found += [_entry(name, self._marker(GREY, name, None)) for name in networks]
        if len(backends) > 1:
            found += [_entry(name, self._marker(GREY, None, name)) for name in backends]
        return found

    def words(self, cells: Sequence[Cell]) -> str:
        """What a mark is, for a caption."""
        networks = {c.row["backbone"] for c in cells}
        backends = dict.fromkeys(c.row["backend"] for c in cells)
        network = " with a network (shape)" if len(networks) > 1 else ""
        fills = ", ".join(
            f"{FILL_WORDS[self._backends.index(name) % len(FILLS)]}: {name}" for name in backends
        )
        backend = f" in a backend ({fills})" if len(backends) > 1 else ""
        return f"a policy (colour){network}{backend}"


def _entry(name: str, marker: dict[str, object], group: str | None = None) -> Figure:
    """A mark that stands in the legend alone."""
    own = {} if group is None else {"legendgroup": group}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": escaped(name),
        "x": [None],
        "y": [None],
        "marker": marker,
        "hoverinfo": "skip",
        **own,
    }
