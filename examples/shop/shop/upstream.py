"""A service of prices that cannot be relied on: most answers are quick, some slow, some errors, and some never come."""

import asyncio
import random
from collections import Counter

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

MOODS = {"quick": 85, "slow": 8, "fail": 5, "hang": 2}
"""What an answer is like, and how many of 100 are."""


def create_upstream(seed: int = 7, moods: Counter[str] | None = None) -> Starlette:
    """Return the application; `uvicorn --factory --port 8001 shop.upstream:create_upstream` serves it.

    Args:
        seed: decides which answers are which.
        moods: counts them.
    """
    chance = random.Random(seed)
    counts = Counter() if moods is None else moods

    async def read_price(request: Request) -> JSONResponse:
        [mood] = chance.choices(list(MOODS), list(MOODS.values()))
        counts[mood] += 1
        await asyncio.sleep(0.3 if mood == "slow" else 0.01)
        if mood == "fail":
            return JSONResponse({"detail": "not now"}, status_code=503)
        while mood == "hang" and (await request.receive())["type"] != "http.disconnect":
            pass  # until the client gives up
        return JSONResponse({"price": 1 + request.path_params["number"] % 20 / 2})

    return Starlette(routes=[Route("/prices/{number:int}", read_price)])
