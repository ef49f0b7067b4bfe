"""What people do today, beside Thawbench: the same images, epochs, batch and input size.

``keras_flow``, ``torch_tutorial`` and ``fastai_learner`` are programs that a user of that framework
would write; they know nothing of Thawbench, and each runs in an environment of its own
(``environments/``, ``make peers``). ``compare`` runs them and Thawbench in turn.
"""
