"""What differs between one worker and another, from the environment."""

import os

CACHE_ENTRIES = int(os.environ.get("WORKER_CACHE_ENTRIES", "1000"))
"""The most rates to remember; 0 to see what the worker is like without."""
