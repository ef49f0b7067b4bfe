"""The proof that two backends compute the same numbers, level by level.

``plan`` turns a request into measurements, ``probe`` makes them in a worker of one backend,
``compare`` turns the files of two backends into levels and a verdict, ``run`` drives the workers,
and ``proofs`` keeps verdicts on this machine.
"""
