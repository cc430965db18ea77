"""Makes the dashboards: run ``python -m grafana.build`` in the folder above, with the dependency group ``dashboards``."""

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.batches import batches
from grafana.caches import caches
from grafana.operations import operations
from grafana.overview import overview
from grafana.pools import pools

__all__ = ("documents", "main")

FOLDER = Path(__file__).parent / "dashboards"


def documents() -> dict[str, str]:
    """Return the text of each file."""
    boards = {"overview": overview, "caches": caches, "pools": pools, "batches": batches, "operations": operations}
    return {f"{name}.json": _text(make().build()) for name, make in boards.items()}


def _text(board: Dashboard) -> str:
    for number, panel in enumerate(board.panels or [], 1):
        panel.id_val = number
    for variable in board.templating.list_val or []:
        variable.auto = variable.auto_count = variable.auto_min = None  # are for another kind of variables
    text: str = JSONEncoder(sort_keys=True, indent=2).encode(board)
    return text + "\n"


def main() -> None:
    """Write the files."""
    for name, text in documents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
