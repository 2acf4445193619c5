"""Hypothesis profiles: a short search in `make test`, a long one in `make properties`, no shrinking for mutants."""

import os

from hypothesis import Phase, settings

settings.register_profile("quick", derandomize=True, deadline=None, max_examples=25)
settings.register_profile("nightly", deadline=None, max_examples=500, print_blob=True)
settings.register_profile("mutants", settings.get_profile("quick"), phases=[Phase.explicit, Phase.generate])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
