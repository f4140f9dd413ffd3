"""What all forks of `warm.py` begin with."""

import iwae_zoo_console

with iwae_zoo_console.quiet():
    import iwae_zoo.programs.train  # noqa: F401
