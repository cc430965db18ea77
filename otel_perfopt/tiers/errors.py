"""How the codec finds its way to the part of a value that cannot be encoded."""

__all__ = ("Refused", "type_name")


class Refused(Exception):
    """Some part of a value cannot be encoded; on its way up, every container adds where in it that part is.

    Args:
        problem: what is wrong with the part.
        path: where it is.
    """

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = path

    def inside(self, step: str) -> "Refused":
        """Return it as seen from a container, in which the part is at `step`."""
        return Refused(self.problem, step + self.path)

    def describe(self, root: str) -> str:
        """Return the path from `root` and the problem as one sentence."""
        path = self.path if len(self.path) <= 200 else f"{self.path[:200]}..."
        return f"{root}{path} {self.problem}"


def type_name(kind: type) -> str:
    """Return the name of a class with its module, as in ``app.models.User``; builtins without.

    >>> type_name(int), type_name(Refused)
    ('int', 'otel_perfopt.tiers.errors.Refused')
    """
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
