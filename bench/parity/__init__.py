"""The proof that two backends compute the same thing, level by level.

``plan`` says what is to be shown, ``probe`` measures one backend inside its worker, ``compare``
turns the files of two backends into levels, ``prove`` drives the workers, ``proofs`` keeps what was
shown on this machine.
"""
