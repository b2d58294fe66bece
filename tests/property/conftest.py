"""Laws are about what comes out, not how fast: a busy machine is not a counterexample."""

from hypothesis import settings

settings.register_profile("laws", deadline=None)
settings.load_profile("laws")
