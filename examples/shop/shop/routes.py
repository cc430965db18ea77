"""The routes. They take requests apart and put answers together; what is slow is below them."""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Request
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field

from otel_perfopt import get_performance_report

from .service import Shop
from .store import Order, Product

routes = APIRouter()
Number = Annotated[int, Path(ge=1, lt=2**63)]  # what SQLite can tell apart
Text = Annotated[str, Field(min_length=1, max_length=100)]


class Page(BaseModel):
    """A product page."""

    number: int
    name: str
    price: float


class Basket(BaseModel):
    """What somebody wants of a product. Whatever could not be written is refused here: it would spoil a batch for others."""

    customer: Text
    quantity: int = Field(default=1, ge=1, le=100)


class Rename(BaseModel):
    """The new name of a product."""

    name: Text


def the_shop(request: Request) -> Shop:
    """Return what the lifespan has opened."""
    shop: Shop = request.state.shop
    return shop


TheShop = Annotated[Shop, Depends(the_shop)]


def the_product(number: Number, shop: TheShop) -> Product:
    """Find a product. FastAPI calls this plain function in a worker thread, so a query does not block the event loop."""
    found = shop.store.product(number)
    if found is None:
        raise HTTPException(404, "no such product")
    return found


TheProduct = Annotated[Product, Depends(the_product)]


@routes.get("/products/{number}")
async def read_product(product: TheProduct, shop: TheShop) -> Page:
    return Page(number=product.number, name=product.name, price=await shop.prices.price(product.number))


@routes.put("/products/{number}", status_code=204)
def rename_product(product: TheProduct, new: Rename, shop: TheShop) -> None:
    shop.store.rename(product.number, new.name)


@routes.get("/categories/{name}")
def read_category(name: str, shop: TheShop) -> list[Product]:
    return shop.store.category(name)


@routes.post("/products/{number}/orders", status_code=201)
async def place_order(product: TheProduct, basket: Basket, shop: TheShop) -> int:
    return await shop.order(Order(basket.customer, product.number, basket.quantity))


@routes.get("/products/{number}/recommendations")
async def read_recommendations(number: Number, shop: TheShop) -> list[int]:
    model = await shop.recommendations.get_async()
    return model.beside(number)


@routes.get("/performance")
def read_performance() -> PlainTextResponse:
    return PlainTextResponse(str(get_performance_report()))  # for those alone who may see it; docs/in-your-service.md
