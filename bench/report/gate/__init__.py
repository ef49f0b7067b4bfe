"""Words, tables and files about a comparison of speed (``bench.gate``)."""
