"""Ending a session: every process of a worker that cannot see to it itself any more."""

import os
import signal
import subprocess
from contextlib import suppress

__all__ = ("kill_session",)


def kill_session(session: int) -> None:
    """Kill all processes of a session but its leader.

    Args:
        session: the number of the session, which is that of its leader; nobody else gets the number while one of them lives.
    """
    seen = {session}
    # Again, until there is nobody new: those who are about to be killed may start others.
    while found := {pid for pid in _processes() if _session_of(pid) == session} - seen:
        for pid in found:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        seen |= found


def _processes() -> list[int]:
    if os.path.isdir("/proc/self"):
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    listed = subprocess.run(["/bin/ps", "-A", "-o", "pid="], stdout=subprocess.PIPE, check=False)
    return [int(pid) for pid in listed.stdout.split()]


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None
