"""One load for many callers, whoever is cancelled: threads and an event loop share it."""

import asyncio
import threading

from otel_perfopt import Cache

cache: Cache[str, str] = Cache("pages")
loads: list[str] = []


async def fetch() -> str:
    """Pretend to fetch a page."""
    loads.append("page")
    await asyncio.sleep(0.05)
    return "<html>"


async def main() -> None:
    impatient = asyncio.create_task(cache.get_async("page", fetch))
    patient = [asyncio.create_task(cache.get_async("page", fetch)) for _ in range(10)]
    await asyncio.sleep(0)  # let all of them ask

    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(cache.get("page", lambda: "never called")))
    thread.start()

    impatient.cancel()  # it started the load, and the others get the value all the same
    pages = await asyncio.gather(*patient)
    await asyncio.to_thread(thread.join)
    print(f"{len(pages)} tasks and a thread got {pages[0]!r} and {answers[0]!r} from {len(loads)} load")


if __name__ == "__main__":
    asyncio.run(main())
