"""What is in the database. Nothing here knows of requests, and everything runs in whichever thread calls it."""

import logging
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from otel_perfopt import Cache, ResourcePool, cached, entry_options

from .settings import CACHE_ENTRIES

SCHEMA = """
    CREATE TABLE IF NOT EXISTS products (number INTEGER PRIMARY KEY, name TEXT, category TEXT, stock INTEGER CHECK (stock >= 0));
    CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, customer TEXT, product INTEGER, quantity INTEGER);
"""

log = logging.getLogger(__name__)
pages: Cache = Cache("pages", ttl="5m", max_size=CACHE_ENTRIES)


@dataclass(frozen=True)
class Product:
    """What a product page shows. The stock is not among it: it changes too often to be kept."""

    number: int
    name: str
    category: str


@dataclass(frozen=True)
class Order:
    """Somebody wants to have something."""

    customer: str
    product: int
    quantity: int = 1


class SoldOut(Exception):
    """There is not enough left of a product."""


def connect(path: Path) -> sqlite3.Connection:
    """Open the database. A pooled connection goes from thread to thread, but has one user at a time."""
    connection = sqlite3.connect(path, check_same_thread=False)
    with closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.executescript(SCHEMA)
    return connection


class Store:
    """The products and the orders of a shop.

    Args:
        path: the SQLite file.
    """

    def __init__(self, path: Path) -> None:
        self.connections = ResourcePool("database", partial(connect, path), max_size=3, acquire_timeout="2s")

    def close(self) -> None:
        """Close all connections."""
        self.connections.close()

    @cached(cache=pages, tags=lambda _, number: [f"product:{number}"])
    def product(self, number: int) -> Product | None:
        """Return a product; None, which is kept as well, if there is none of this number."""
        rows = self._query("SELECT number, name, category FROM products WHERE number = ?", number)
        return Product(*rows[0]) if rows else None

    @cached(cache=pages)
    def category(self, name: str) -> list[Product]:
        """Return all products of a category. The page depends on every product that is on it, so it carries all their tags."""
        found = [Product(*row) for row in self._query("SELECT number, name, category FROM products WHERE category = ?", name)]
        entry_options(tags=[f"product:{product.number}" for product in found])
        return found

    def rename(self, number: int, name: str) -> None:
        """Rename a product: first the write, then every page that shows it is forgotten."""
        with self.connections.lease() as connection, connection, closing(connection.cursor()) as cursor:
            cursor.execute("UPDATE products SET name = ? WHERE number = ?", [name, number])
        pages.invalidate_tag(f"product:{number}")
        log.info("product renamed", extra={"product": number})

    def add(self, products: Sequence[Product], *, stock: int) -> None:
        """Add products, or replace those of the same numbers."""
        rows = [(product.number, product.name, product.category, stock) for product in products]
        with self.connections.lease() as connection, connection, closing(connection.cursor()) as cursor:
            cursor.executemany("INSERT OR REPLACE INTO products VALUES (?, ?, ?, ?)", rows)
        pages.clear()  # also those of categories, which were without them

    def place(self, orders: list[Order]) -> list[int | SoldOut]:
        """Write many orders in one transaction; return their numbers, or `SoldOut` for each that cannot be met."""
        with self.connections.lease() as connection, connection, closing(connection.cursor()) as cursor:
            return [_place(cursor, order) for order in orders]

    def orders(self) -> list[Order]:
        """Return all orders."""
        return [Order(*row) for row in self._query("SELECT customer, product, quantity FROM orders ORDER BY number")]

    def _query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self.connections.lease() as connection, closing(connection.cursor()) as cursor:
            return cursor.execute(statement, values).fetchall()


def _place(cursor: sqlite3.Cursor, order: Order) -> int | SoldOut:
    taken = "UPDATE products SET stock = stock - ? WHERE number = ? AND stock >= ?"
    if not cursor.execute(taken, [order.quantity, order.product, order.quantity]).rowcount:
        return SoldOut(f"fewer than {order.quantity} left of product {order.product}")
    cursor.execute(
        "INSERT INTO orders (customer, product, quantity) VALUES (?, ?, ?)", [order.customer, order.product, order.quantity]
    )
    return cursor.lastrowid or 0
