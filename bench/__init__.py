"""Thawbench: the same transfer-learning experiment through PyTorch and Keras.

Nothing in this package imports a deep-learning framework; those live in ``backends`` and run in
worker processes of their own.
"""

__version__ = "0.1.0"
SCHEMA_VERSION = 1
"""Version of ``result.json`` and of the JSON that the commands print."""
