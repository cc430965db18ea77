"""The state of tasks: updates that are written in batches, by default to one SQLite file."""

from otel_perfopt.state.store import State, StateStore
from otel_perfopt.state.updates import StateWriter, TaskUpdate, apply_updates, set_state_writer

__all__ = ("State", "StateStore", "StateWriter", "TaskUpdate", "apply_updates", "set_state_writer")
