"""Worlds for the tests of pools."""

from collections.abc import Iterator

import pytest

from tests.pool.support import TaskWorld, ThreadWorld, World


@pytest.fixture(params=[ThreadWorld, TaskWorld], ids=["threads", "tasks"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A world of threads, and then one of tasks; in the end nothing may have been treated badly."""
    world = request.param()
    yield world
    world.finish()


@pytest.fixture
def threads() -> Iterator[ThreadWorld]:
    """A world of threads."""
    world = ThreadWorld()
    yield world
    world.finish()


@pytest.fixture
def tasks() -> Iterator[TaskWorld]:
    """A world of tasks."""
    world = TaskWorld()
    yield world
    world.finish()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for a pool that no other test uses."""
    return str(request.node.nodeid).replace("::", ".")
