"""Files that installed packages carry."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from bench.errors import Unavailable


def package_file(package: str, distribution: str, relative: str) -> Path:
    """Return the path of a file that an installed package carries, without importing the package;
    raise Unavailable if it is not installed or lacks the file.

    Args:
        package: Import name, such as 'skimage'.
        distribution: Name for pip, such as 'scikit-image'.
        relative: Path below the package's folder.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(
            f"The package {distribution} is not installed: pip install {distribution}"
        )
    path = Path(spec.submodule_search_locations[0]) / relative
    if not path.is_file():
        raise Unavailable(
            f"The installed {distribution} has no {relative}: "
            f"pip install --upgrade --force-reinstall {distribution}"
        )
    return path
