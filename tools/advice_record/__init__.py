"""The published record of advice: how often it was right, and what it cost.

``python -m tools.advice_record collect FOLDER`` runs every policy to the end in each cell and then
asks the adviser about it (hours, resumable), ``… report FOLDER COMMIT`` writes
``results/advice.md``. ``make advice-record`` does both.
"""
