"""What ``import otel_perfopt`` costs, beside importing the metrics of the OpenTelemetry SDK, each in a fresh interpreter."""

import os
import subprocess
import sys

from benchmarks.harness import Benchmark, Build, Contestant, Slice, Turn

__all__ = ("BENCHMARKS",)

_TIMED = "import time; start = time.process_time(); import {module}; print(time.process_time() - start)"


def importing(module: str) -> Build:
    """Return the slice of an import, in CPU time; the start of the interpreter does not count."""

    def build(_: Turn) -> Slice:
        command = [sys.executable, "-c", _TIMED.format(module=module)]
        # The warm-up leaves compiled modules behind, as an installed package has them.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return lambda: float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

    return build


BENCHMARKS = (
    Benchmark(
        "import",
        "import otel_perfopt",
        (
            Contestant("otel_perfopt", importing("otel_perfopt")),
            Contestant("opentelemetry.sdk.metrics", importing("opentelemetry.sdk.metrics")),
            Contestant("wrapt, asyncio, the OTel API", importing("wrapt, asyncio, opentelemetry.metrics, opentelemetry.trace")),
        ),
        limit=1.5,
        slices=5,
    ),
)
