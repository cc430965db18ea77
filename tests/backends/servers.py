"""Programs that serve while tests run, and questions to them."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from socket import create_server
from types import TracebackType
from typing import Any, Self, TypeVar

import pytest

T = TypeVar("T")

PAUSE = 0.05
"""Seconds between two questions to another process, which has no other way to say that it is ready."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def wait_for(what: Callable[[], T | None], seconds: float = 20.0) -> T:
    """Ask again and again until the answer is true, and return it; errors of the network count as no answer."""
    until = time.monotonic() + seconds
    while True:
        answer: Any = None
        try:
            if answer := what():
                return answer
        except OSError as error:
            answer = error
        if time.monotonic() > until:
            pytest.fail(f"not within {seconds:g} seconds; the last answer was {str(answer)[:2000]}")
        time.sleep(PAUSE)


def get_json(url: str, **parameters: str) -> Any:
    """Return what a server answers, as JSON; None for 404. Other errors of HTTP fail with what the server says."""
    query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
    try:
        with urllib.request.urlopen(url + query, timeout=20) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 404:
                return None
            pytest.fail(f"{error.code} from {url}{query}: {error.read().decode(errors='replace')[:2000]}")


def answers(url: str) -> bool:
    """Whether a server answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


class Server:
    """A program that serves while the block runs.

    Args:
        command: the program with its arguments.
        ready: a URL that answers 200 when it is ready, or a function that says so.
        folder: where it runs; its output goes into `NAME.log` there.
        variables: more of its environment.
    """

    def __init__(
        self,
        command: Sequence[object],
        *,
        ready: str | Callable[[], bool],
        folder: Path,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.command = [str(part) for part in command]
        self.log = folder / f"{Path(self.command[0]).name}.log"
        self._ready = ready
        self._variables = variables or {}
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self._folder,
                env={**environment, **self._variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            wait_for(self._is_ready, 50)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End it: it is asked first, and made to after ten seconds."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            pytest.fail(
                f"{self.command[0]} ended with {self._process.returncode}:\n{self.log.read_text(errors='replace')[-4000:]}"
            )
        return answers(self._ready) if isinstance(self._ready, str) else self._ready()
