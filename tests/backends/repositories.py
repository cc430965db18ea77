"""Git repositories for the demo to work on."""

import subprocess
from pathlib import Path

SOURCES = {"a.py": "import os\n", "b.py": "from a import os\n", "folder/c.py": "X = 1\n"}


def make_repository(root: Path) -> Path:
    """Make a git repository with a few files, and return its folder."""
    for name, text in SOURCES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git = ("git", "-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
    for command in (("init", "-q"), ("add", "."), ("commit", "-qm", "all")):
        subprocess.run([*git, *command], cwd=root, check=True)
    return root
