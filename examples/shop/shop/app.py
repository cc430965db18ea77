"""The application: FastAPI with the shop behind it, and telemetry around both."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from .routes import routes
from .service import Shop, opened
from .settings import Settings
from .store import SoldOut
from .telemetry import exported, observe_requests


def create_app(settings: Settings | None = None, transport: httpx.AsyncBaseTransport | None = None) -> FastAPI:
    """Return the application; `uvicorn --factory shop.app:create_app` serves it.

    Args:
        settings: None for those of the environment.
        transport: what takes the requests for prices; None for the network.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Shop]]:
        with exported("shop"):
            async with opened(settings or Settings.from_environment(), transport) as shop:
                yield {"shop": shop}

    app = FastAPI(title="shop", lifespan=lifespan)
    app.include_router(routes)
    app.add_exception_handler(SoldOut, _sold_out)
    app.add_exception_handler(httpx.HTTPError, _no_price)
    observe_requests(app)
    return app


async def _sold_out(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=409)


async def _no_price(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": f"no price at the moment: {type(error).__name__}"}, status_code=503)
