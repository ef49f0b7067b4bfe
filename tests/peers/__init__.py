"""Comparison of Thawbench with common training programs on the same images and recipe.

``keras_flow``, ``torch_tutorial`` and ``fastai_learner`` are programs as a user of that framework
would write them; they do not import Thawbench, and each runs in its own environment
(``environments/``, ``make peers``). ``compare`` runs them and Thawbench in turn.
"""
