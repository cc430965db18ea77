"""The graph of who waits for whom."""

from otel_perfopt._core.flight import Node
from otel_perfopt.single_flight.waiting import reachable


def test_the_graph_may_change_while_it_is_walked() -> None:
    """Edges come and go without a lock; here, one comes at each step of the walk."""
    start = Node()

    class Growing(Node):
        def __hash__(self) -> int:
            start.waiting_for.add(Node())
            return id(self)

    first = Growing()
    start.waiting_for.update({first, Node(), Node()})
    assert {start, first} <= set(reachable(start))
