"""For all tests: no deadline for property tests, and Ctrl-C as in a terminal."""

import signal

from hypothesis import settings

# Machines under load are slow.
settings.register_profile("house", deadline=None)
settings.load_profile("house")

# A shell that starts the tests in the background has Ctrl-C ignored, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
