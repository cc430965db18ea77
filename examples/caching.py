"""A cached function, a cached method and a shared cache, and what the report says of them."""

from otel_perfopt import Cache, cached, get_performance_report


@cached(ttl="5m", max_size=100)
def fibonacci(number: int) -> int:
    """Return a Fibonacci number; without the cache, the 90th would take until tomorrow."""
    return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)


class Shop:
    """Keeps the entries of each shop apart."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    @cached(name="prices")
    def price(self, article: str) -> float:
        """Return the price of an article in this shop."""
        return len(article) * self.rate


def main() -> None:
    print("fibonacci(90) =", fibonacci(90))

    cheap, dear = Shop(1.0), Shop(2.0)
    for _ in range(3):
        print("tea costs", cheap.price("tea"), "or", dear.price("tea"))
    Shop.price.invalidate(dear, "tea")

    settings: Cache[str, str] = Cache("settings", ttl=None)
    print("language:", settings.get("language", lambda: "en"))
    print("language:", settings.get("language"))

    print()
    print(get_performance_report())


if __name__ == "__main__":
    main()
