"""The published calibration of the gate: real comparisons, planted slowdowns, planted bias.

``python -m tools.calibration collect FOLDER`` measures (hours, resumable), ``python -m
tools.calibration report FOLDER COMMIT`` writes ``results/calibration.md``. ``make calibrate`` does
both.
"""
