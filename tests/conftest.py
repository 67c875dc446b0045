"""For all tests: property tests have no deadline, since machines under load are slow."""

from hypothesis import settings

settings.register_profile("house", deadline=None)
settings.load_profile("house")
