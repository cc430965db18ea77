"""What a tier says to Redis, and what it makes of the errors."""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as TimedOut
from redis.retry import Retry

from otel_perfopt.errors import ConfigurationError, TierError
from otel_perfopt_redis.records import MOMENT, Head, Mark
from otel_perfopt_redis.scripts import CHANGE, CLEAR, JOIN, READ, RELEASE, WRITE

__all__ = ("Command", "Connection", "make_client", "options_of")

T = TypeVar("T")
Command = tuple[Any, ...]

TRUST = 1.0  # seconds for which Redis's clock is worked out from its last answer

_SCRIPTS = (READ, WRITE, CHANGE, CLEAR, RELEASE, JOIN)  # the last one is there when all are


def make_client(url: str, timeout: float) -> Any:
    """Return a client whose calls take no longer than `timeout` seconds each.

    Raises:
        ConfigurationError: it is no URL of a Redis.
    """
    try:
        pool = ConnectionPool.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),  # see `Connection.run`
            protocol=2,
        )
    except ValueError as error:
        raise ConfigurationError(f"url= is not that of a Redis: {error}") from None  # without the url, which has the password
    return Redis(connection_pool=pool)


def options_of(client: Any) -> dict[str, Any]:
    """Return the options of a client's connections, as far as it tells them."""
    try:
        options: dict[str, Any] = client.get_connection_kwargs()
    except AttributeError:
        return {}
    return options


class Connection:
    """Commands to Redis; the first one on each new connection is to ask what is still there.

    Args:
        client: the client.
        keys: those of the head, the facts, the recent changes and the stream of changes.
        is_own: whether nobody else uses the client. Then commands go to its connections directly, and each of these asks when it
            is new. A client of somebody else does as it likes, and one asks after errors that tell of a new connection.

    Attributes:
        on_join: called when that was asked, or the answer would be another one: changes may have been missed.
        latest: the latest mark that is known.
    """

    def __init__(self, client: Any, keys: Sequence[bytes], *, is_own: bool) -> None:
        self.on_join: Callable[[], None] = _nothing
        self.latest = Mark(0, 0, 0.0)
        self.is_own = is_own
        self._keys = keys
        self._told = -TRUST, 0.0
        self.use(client)

    def use(self, client: Any) -> None:
        """Go on with another client."""
        self.client = client
        self._must_join = not self.is_own
        self._pool: Any = None
        if self.is_own:
            self._pool = client.connection_pool
            # It replaces connections that were closed, and tells nobody.
            self._pool.connection_kwargs["redis_connect_func"] = self._greet

    def call(self, command: Command) -> Any:
        """Run one command.

        Raises:
            TierError: Redis cannot be reached in time, or refuses.
        """
        return self.run(self._execute, command)

    def call_all(self, commands: Sequence[Command]) -> list[Any]:
        """Run several commands in one round trip; errors of single ones are among the answers."""
        return self.run(self._execute_all, commands)

    def run(self, talk: Callable[..., T], *args: Any) -> T:
        """Talk to Redis, once more if the connection turns out to be lost, and once more if it does not know the scripts."""
        try:
            try:
                return self._attempt(talk, *args)
            except Disconnected:  # it was closed since its last use, and so were those beside it
                if self._pool is not None:
                    self._pool.disconnect(inuse_connections=False)
                return self._attempt(talk, *args)
        except (RedisError, OSError) as error:
            raise TierError(f"Redis: {error or type(error).__name__}", context={"error": type(error).__name__}) from error

    def join(self) -> None:
        """Ask what is there, because some of it is missing."""
        self.run(self._join, self._execute)

    def note(self, moment: bytes) -> tuple[Head, Mark]:
        """Return the head that an answer brings, and the mark."""
        *numbers, now = MOMENT.unpack(moment)
        head = Head(*numbers)
        mark = Mark(int(head.born), int(head.seq), now)
        self._told = time.monotonic(), now
        self.see(mark)
        return head, mark

    def see(self, mark: Mark) -> None:
        """Take note of a mark; what Redis has later must not be older."""
        if mark.born != self.latest.born:
            self.latest = mark
            self.on_join()
        elif mark.seq > self.latest.seq:
            self.latest = mark

    def now(self) -> float | None:
        """Return the time of Redis's clock, worked out from its last answer; None if that was long ago."""
        at, told = self._told
        age = time.monotonic() - at
        return told + age if age < TRUST else None

    def close(self) -> None:
        """Let go of the connections that nobody uses; the next command makes a new one."""
        if self._pool is not None:
            self._pool.disconnect(inuse_connections=False)

    def _attempt(self, talk: Callable[..., T], *args: Any) -> T:
        try:
            if self._must_join:
                self._join(self._execute)
                self._must_join = False
            return talk(*args)
        except NoScriptError:  # it was told to forget them, or it is another one
            self._join(self._execute)
            return talk(*args)
        except (Disconnected, TimedOut, OSError):
            self._must_join = self._pool is None
            raise

    def _greet(self, connection: Any) -> None:
        """Make a new connection ready."""
        try:
            connection.on_connect()
            self._join(lambda command: _exchange(connection, command))
        except BaseException:
            connection.disconnect()
            raise

    def _join(self, execute: Callable[[Command], Any]) -> None:
        command = JOIN.call(self._keys, self.latest.born, self.latest.seq)
        try:
            answer = execute(command)
        except NoScriptError:
            for script in _SCRIPTS:
                execute(("SCRIPT LOAD", script.source))
            answer = execute(command)
        self.note(answer)
        self.on_join()

    def _execute(self, command: Command) -> Any:
        if self._pool is None:
            return self.client.execute_command(*command)
        return self._directly(_exchange, command)

    def _execute_all(self, commands: Sequence[Command]) -> list[Any]:
        if self._pool is not None:
            answers: list[Any] = self._directly(_exchange_all, commands)
        else:
            pipeline = self.client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            answers = pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, NoScriptError):
                raise answer
        return answers

    def _directly(self, exchange: Callable[[Any, Any], T], said: Any) -> T:
        """Say something over a connection of the pool; redis-py's own way takes about as long as a round trip on one machine."""
        try:
            connection = self._pool.get_connection()
        except BaseException:
            self._pool.disconnect(inuse_connections=False)  # it has this one again, which may be half open
            raise
        try:
            return exchange(connection, said)
        except ResponseError:
            raise  # an answer like others
        except BaseException:
            connection.disconnect()  # its answer may still come, and is not that to the next command
            raise
        finally:
            self._pool.release(connection)


def _nothing() -> None:
    """Do nothing."""


def _exchange(connection: Any, command: Command) -> Any:
    connection.send_packed_command(connection.pack_command(*command))
    return connection.read_response()


def _exchange_all(connection: Any, commands: Sequence[Command]) -> list[Any]:
    connection.send_packed_command(connection.pack_commands(commands))
    return [_answer(connection) for _ in commands]


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
