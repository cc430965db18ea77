"""Exchange rates, remembered for a minute."""

from collections.abc import Callable

from otel_perfopt import cached

from .settings import CACHE_ENTRIES


class Rates:
    """Remembers what a bank says.

    Args:
        ask: returns what one unit of a currency is worth in euros.
    """

    def __init__(self, ask: Callable[[str], float]) -> None:
        self._ask = ask

    # However many threads want the rate of a currency, the bank is asked once; all of them get its answer, or its error. An
    # error is not kept: whoever tries again asks again.
    @cached(name="rates", ttl="1m", max_size=CACHE_ENTRIES)
    def rate(self, currency: str) -> float:
        """Return what one unit of a currency is worth in euros.

        Raises:
            ConnectionError: the bank does not answer.
        """
        return self._ask(currency)
