"""A bank that knows exchange rates. It takes its time, and one answer in ten is an error; a seed decides which."""

import random
import threading
import time

RATES = {"EUR": 1.0, "USD": 0.9, "GBP": 1.2, "CHF": 1.1, "JPY": 0.006, "SEK": 0.09, "PLN": 0.23, "CZK": 0.04}


class Bank:
    """Stands for a service elsewhere.

    Args:
        seed: decides which answers are errors.
    """

    def __init__(self, seed: int = 3) -> None:
        self.asked = 0
        self._chance = random.Random(seed)
        self._lock = threading.Lock()

    def ask(self, currency: str) -> float:
        """Return what one unit of a currency is worth in euros.

        Raises:
            ConnectionError: the bank does not answer.
        """
        with self._lock:
            self.asked += 1
            fails = self._chance.random() < 0.1
        time.sleep(0.02)
        if fails:
            raise ConnectionError("the bank does not answer")
        return RATES[currency]
