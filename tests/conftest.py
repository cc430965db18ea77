"""Settings for all tests."""

import signal

from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None)
settings.load_profile("ci")
# A shell starts what it runs in the background with Ctrl-C ignored, and Python leaves it at that.
signal.signal(signal.SIGINT, signal.default_int_handler)
