"""Many keys at once: what is missing is loaded by one call, and shared key by key with everybody else who wants it."""

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from typing_extensions import override

from otel_perfopt._core.flight import ABSENT, Aborted, Failed, Loaded, Outcome
from otel_perfopt.cache.batches import Answers, Batch, call_with, checked_mapping, one_of, part_of
from otel_perfopt.cache.load import Load, Request
from otel_perfopt.cache.loading import NO_LOADER
from otel_perfopt.cache.terms import current_terms
from otel_perfopt.cache.tiered import Tiered
from otel_perfopt.single_flight import Deadline, is_coroutine_function
from otel_perfopt.single_flight.job import Job
from otel_perfopt.single_flight.load import current_load, waiters
from otel_perfopt.single_flight.sharing import Seat
from otel_perfopt.single_flight.waiting import Waits, loop_node, running_loop, wait_in_loop, wait_in_thread
from otel_perfopt.telemetry.background import NoThread

__all__ = ("Many",)


class Many(Tiered):
    """Loading of many keys.

    Args: see `Cache`.
    """

    def _get_many(self, request: Request, keys: Iterable[Hashable]) -> dict[Any, Any]:
        """Return the values of keys; the loader of `request` takes a list of keys, and returns a mapping."""
        self._check(request)
        self._refuse_coroutines(request.loader)
        wanted = list(dict.fromkeys(keys))
        found, missing = self._find_many(wanted, request, None)
        answers = Answers(found, self._deadline_of(missing) if self._runs_behind else None)
        try:
            while missing:
                missing = self._attempt_many(missing, request, answers)
            return self._in_order(wanted, answers)
        finally:
            del answers

    async def _get_many_async(self, request: Request, keys: Iterable[Hashable]) -> dict[Any, Any]:
        """Do what `_get_many` does, without blocking the loop."""
        self._check(request)
        wanted = list(dict.fromkeys(keys))
        found, missing = self._find_many(wanted, request, running_loop())
        answers = Answers(found, self._deadline_of(missing) if self._runs_behind else None)
        try:
            while missing:
                missing = await self._attempt_many_async(missing, request, answers)
            return self._in_order(wanted, answers)
        finally:
            del answers

    def _find_many(
        self, keys: Iterable[Hashable], request: Request, loop: AbstractEventLoop | None
    ) -> tuple[dict[Any, Any], list[Any]]:
        """Return what is fresh, and the keys that have to be looked for elsewhere."""
        found: dict[Any, Any] = {}
        missing: list[Any] = []
        for key in keys:
            entry = self._fresh(key)
            if entry is None:
                missing.append(key)
                continue
            if entry.expires <= self.clock() and request.loader is not NO_LOADER:
                self._refresh_if_due(entry, replace(request, key=key, loader=one_of(request.loader, key)), loop)
            found[key] = self._hit(entry)
        if request.loader is NO_LOADER and not self._has_more:
            self._counts.misses += len(missing)
            for key in missing:
                self._hot.other(key)
            return found, []
        return found, missing

    def _attempt_many(self, keys: list[Any], request: Request, answers: Answers) -> list[Any]:
        """Load what nobody loads, wait for the rest, and return the keys that have to be tried again."""
        batch = Batch()
        seats: list[Seat[Load]] = []
        outcomes: dict[Any, Outcome] = {}
        try:
            if self._runs_behind:
                batch.job = Job(partial(self._run_many, batch, request.loader))
            self._board_many(keys, replace(request, batch=batch), seats, outcomes)
            if batch.loads:
                with Waits(waiters(blocks_loop=True), batch):
                    self._call_many(batch, request.loader)
            self._wait_many(seats, outcomes, request, answers.deadline)
            return self._take(answers, request, outcomes, seats)
        except BaseException:
            self._leave_many(batch, seats, outcomes)
            self._counts.misses += len(keys)
            raise
        finally:
            del batch, seats, outcomes, answers

    async def _attempt_many_async(self, keys: list[Any], request: Request, answers: Answers) -> list[Any]:
        """Do what `_attempt_many` does, without blocking the loop."""
        loop = asyncio.get_running_loop()
        batch = Batch()
        seats: list[Seat[Load]] = []
        outcomes: dict[Any, Outcome] = {}
        try:
            if not is_coroutine_function(request.loader):
                batch.job = Job(partial(call_with, request.loader, batch.keys))
            self._board_many(keys, replace(request, batch=batch), seats, outcomes, loop)
            if batch.loads:
                self._start_many(batch, request.loader, loop)
            await self._wait_many_async(seats, outcomes, request, answers.deadline)
            return self._take(answers, request, outcomes, seats)
        except BaseException:
            self._leave_many(batch, seats, outcomes)
            self._counts.misses += len(keys)
            raise
        finally:
            del batch, seats, outcomes, answers

    def _board_many(
        self,
        keys: list[Any],
        request: Request,
        seats: list[Seat[Load]],
        outcomes: dict[Any, Outcome],
        loop: AbstractEventLoop | None = None,
    ) -> None:
        for key in keys:
            seat = self._board(replace(request, key=key), loop=loop, job=request.batch.job)
            if isinstance(seat, Seat):
                seats.append(seat)
            else:
                outcomes[key] = seat
        request.batch.is_complete.set()

    def _wait_many(
        self, seats: list[Seat[Load]], outcomes: dict[Any, Outcome], request: Request, deadline: Deadline | None
    ) -> None:
        """Wait for all loads, one after the other, and note their outcomes."""
        limited = deadline is not None and not deadline.is_endless
        for seat in seats:
            with Waits(waiters(blocks_loop=True, blocks_thread=True), seat.load) as can_end:
                if not can_end:
                    self._refuse(seat.load)
                look_after = partial(seat.load.look_after, limited=limited)
                wait_in_thread(partial(self._subscribe, seat.load), look_after, deadline)
            outcomes[seat.load.key] = self._outcome_of_one(seat, request, deadline)

    async def _wait_many_async(
        self, seats: list[Seat[Load]], outcomes: dict[Any, Outcome], request: Request, deadline: Deadline | None
    ) -> None:
        """Do what `_wait_many` does, without blocking the loop."""
        loop = asyncio.get_running_loop()
        for seat in seats:
            load = seat.load
            with Waits(waiters(), load) as can_end:
                if not can_end:
                    self._refuse(load)
                elsewhere = load.loop is not None and load.loop is not loop
                await wait_in_loop(partial(self._subscribe, load), load.can_end if elsewhere else None, deadline)
            outcomes[load.key] = self._outcome_of_one(seat, request, deadline)

    def _call_many(self, batch: Batch, loader: Callable[..., Any]) -> None:
        """Call the loader in this thread, or have a worker do it."""
        if batch.job is None:
            self._run_many(batch, loader)
            return
        try:
            batch.job.start()
        except NoThread:  # the process ends
            batch.job.lend_thread()
        batch.is_started = True

    def _run_many(self, batch: Batch, loader: Callable[..., Any]) -> None:
        """Call the loader in this thread, for all loads of a batch."""
        batch.is_complete.wait()
        tokens = current_load.set(batch), current_terms.set(None)
        try:
            if self._end_found(batch):
                values = {} if loader is NO_LOADER else self._load(partial(loader, batch.keys()))
                self._end_many(batch, Loaded(checked_mapping(values)))
        except Exception as error:  # noqa: BLE001 - it goes to everybody who wants one of the keys
            self._end_many(batch, Failed(error, error.__traceback__))
        except BaseException as error:
            self._end_many(batch, Aborted(error))
            if batch.job is None:
                raise
        finally:
            current_load.reset(tokens[0])
            current_terms.reset(tokens[1])
            del batch

    def _start_many(self, batch: Batch, loader: Callable[..., Any], loop: AbstractEventLoop) -> None:
        """Call the loader in a task of this loop, for all loads of a batch."""
        for load in batch.loads:
            load.waiting_for.add(loop_node(loop))
        task = loop.create_task(self._drive_many(batch, loader))
        for load in batch.loads:
            load.task = task
        task.add_done_callback(lambda _: self._end_many(batch, Aborted()))
        batch.is_started = True

    async def _drive_many(self, batch: Batch, loader: Callable[..., Any]) -> None:
        current_load.set(batch)
        current_terms.set(None)
        try:
            if await self._end_found_async(batch):
                values = {} if loader is NO_LOADER else await self._load_async(partial(loader, batch.keys()), batch.job)
                self._end_many(batch, Loaded(checked_mapping(values)))
        except Exception as error:  # noqa: BLE001 - it goes to everybody who wants one of the keys
            self._end_many(batch, Failed(error, error.__traceback__))
        except BaseException as error:
            self._end_many(batch, Aborted(error))
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
        finally:
            del batch

    def _end_found(self, batch: Batch) -> bool:
        """End the loads that a tier behind the memory can answer, and return whether there are others."""
        if self._has_more:
            self._end_these(batch, self._look_behind(self._encoded_loads(batch)))
        return bool(batch.loads)

    async def _end_found_async(self, batch: Batch) -> bool:
        """Do what `_end_found` does, without waiting for a network on the loop."""
        if self._has_more:
            self._end_these(batch, await self._look_behind_async(self._encoded_loads(batch)))
        return bool(batch.loads)

    def _encoded_loads(self, batch: Batch) -> list[Load]:
        """Return the loads whose keys have bytes; the others end here, if that is an error."""
        for load in batch.loads:
            self._encode_key(load)
        return [load for load in batch.loads if load.outcome is None]

    def _end_these(self, batch: Batch, found: Mapping[Any, Loaded]) -> None:
        for load in batch.loads:
            if load.key in found:
                self._end_one(load, found[load.key])
        batch.loads = [load for load in batch.loads if load.outcome is None]

    def _encode_key(self, load: Load) -> None:
        """Make bytes of a key; if there are none, that is a matter of this load alone."""
        try:
            load.terms.data = self._data_of(load.key)
        except Exception as error:  # noqa: BLE001 - it goes to those who want this key
            self._end(load, Failed(error, error.__traceback__))
        finally:
            del load

    def _end_many(self, batch: Batch, outcome: Outcome) -> None:
        """End all loads of a batch that have not ended, with what the call has come to."""
        try:
            for load in batch.loads:
                if load.outcome is None:
                    self._end_one(load, part_of(outcome, load.key))
            batch.loads = []
        except BaseException:
            for load in batch.loads:
                self._finish(load, Aborted())
            raise

    def _end_one(self, load: Load, outcome: Outcome) -> None:
        try:
            if isinstance(outcome, Aborted):
                self._finish(load, outcome)
            else:
                self._end(load, outcome)
        except Exception as error:  # noqa: BLE001 - the weigher's, and this key's alone
            self._end(load, Failed(error, error.__traceback__))
        finally:
            del load, outcome

    def _leave_many(self, batch: Batch, seats: list[Seat[Load]], outcomes: Mapping[Any, Outcome]) -> None:
        """Take a caller off who was interrupted or cancelled."""
        if not batch.is_started:
            batch.is_complete.set()
            self._end_many(batch, Aborted())
        for seat in seats:
            if seat.load.key not in outcomes:
                self._leave(seat.load)

    def _outcome_of_one(self, seat: Seat[Load], request: Request, deadline: Deadline | None) -> Outcome:
        """Return the outcome for one key; of a load of this caller's own, also that there is no value."""
        outcome = seat.load.outcome
        if seat.is_mine and isinstance(outcome, Loaded) and outcome.value is ABSENT:
            return outcome
        return self._outcome_of(seat, replace(request, key=seat.load.key), deadline)

    def _take(self, answers: Answers, request: Request, outcomes: Mapping[Any, Outcome], seats: list[Seat[Load]]) -> list[Any]:
        """Note the answers, and return the keys that have to be tried again."""
        mine = {seat.load.key for seat in seats if seat.is_mine}
        again: list[Any] = []
        for key, outcome in outcomes.items():
            if isinstance(outcome, Aborted) and not (key in mine and outcome.error is not None):
                again.append(key)
                continue
            is_absent = isinstance(outcome, Loaded) and outcome.value is ABSENT
            given = Aborted() if is_absent else outcome
            settled = self._settle(replace(request, key=key), given, at_once=not answers.is_second)
            if not is_absent:
                answers.note(key, settled)
        answers.is_second = True
        return again

    def _in_order(self, keys: Iterable[Any], answers: Answers) -> dict[Any, Any]:
        """Return the values, or raise the failure."""
        failure = answers.failure
        outcome: Failed | Aborted | None = None
        try:
            if failure is None:
                return {key: answers.values[key] for key in keys if key in answers.values}
            key, outcome = failure
            if isinstance(outcome, Aborted):
                self._tell_cancelled(key, outcome)
            raise outcome.error.with_traceback(outcome.traceback)
        finally:
            failure = outcome = None
            del answers

    @override
    def _new_load(self, request: Request, loop: AbstractEventLoop | None, job: Job | None) -> Load:
        load = super()._new_load(request, loop, job)
        if request.batch is not None:
            load.batch = request.batch
            request.batch.add(load)
        return load
