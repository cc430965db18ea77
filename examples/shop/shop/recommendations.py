"""A model of what is bought together; made of all orders when somebody asks for the first time."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import permutations

from .store import Order


class Recommendations:
    """Knows what customers who bought one product bought besides.

    Args:
        orders: what it learns from.

    >>> model = Recommendations([Order("Ada", 1), Order("Ada", 2), Order("Max", 1), Order("Max", 2), Order("Max", 3)])
    >>> model.beside(1)
    [2, 3]
    """

    def __init__(self, orders: Iterable[Order]) -> None:
        baskets: Mapping[str, set[int]] = defaultdict(set)
        for order in orders:
            baskets[order.customer].add(order.product)
        self._together: Mapping[int, Counter[int]] = defaultdict(Counter)
        for basket in baskets.values():
            for one, other in permutations(sorted(basket), 2):
                self._together[one][other] += 1

    def beside(self, product: int, limit: int = 3) -> list[int]:
        """Return what was bought most often beside a product."""
        return [number for number, _ in self._together[product].most_common(limit)] if product in self._together else []
