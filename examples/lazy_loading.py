"""Lazy values: loaded once for threads and tasks, retried after errors, one per instance, and made anew on request."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from otel_perfopt import LazyLoader, lazy


@lazy
def settings() -> dict[str, int]:
    """Read the settings; once, whoever asks."""
    print("reading the settings")
    return {"workers": 4}


@lazy
async def session() -> list[str]:
    """Open a session; a coroutine function is awaited, as it always was."""
    print("opening a session for", settings()["workers"], "workers")
    await asyncio.sleep(0.01)
    return ["session"]


class Repository:
    """Each instance has an index of its own, which goes with it."""

    def __init__(self, name: str) -> None:
        self.name = name

    @lazy
    def index(self) -> str:
        """Build the index of this repository."""
        print("indexing", self.name)
        return f"index of {self.name}"


class Service:
    """A remote service that is down at first."""

    def __init__(self) -> None:
        self.attempts = 0

    def connect(self) -> str:
        """Fail once, then succeed."""
        self.attempts += 1
        if self.attempts == 1:
            raise ConnectionError("no route to host")
        return "connected"


async def use_session() -> None:
    first, second = await asyncio.gather(session(), session())
    print("one session for two tasks:", first is second)


def main() -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: settings(), range(8)))
    print("one value for eight threads:", all(each is found[0] for each in found))
    asyncio.run(use_session())

    tools, docs = Repository("tools"), Repository("docs")
    print(tools.index(), "and", tools.index(), "and", docs.index())
    tools.index.reset()
    print("loaded after a reset:", tools.index.loaded)

    service = Service()
    connection = LazyLoader(service.connect, error_ttl=0, name="connection")
    try:
        connection.get()
    except ConnectionError as error:
        print("first:", error)
    print("then:", connection.get(), "after", service.attempts, "attempts")

    entered, opened = threading.Event(), threading.Event()
    versions = iter(["old", "new"])

    def read_version() -> str:
        version = next(versions)
        entered.set()
        opened.wait()
        return version

    slow = LazyLoader(read_version)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(slow.get)
        entered.wait()
        slow.reset()  # in the middle of the load: who waits gets its value, and nobody else
        opened.set()
        print("before the reset:", waiting.result(), "- after it:", slow.get())


if __name__ == "__main__":
    main()
