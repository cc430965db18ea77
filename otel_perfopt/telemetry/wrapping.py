"""What the decorators make of a function: a wrapt proxy that pickles and copies as the function itself would."""

import importlib
import inspect
import pickle
from collections.abc import Callable
from functools import partial, reduce
from typing import Any, TypeVar, cast

import wrapt

__all__ = ("BoundWrapper", "Wrapper", "label_of", "name_of", "plain_function", "wrap_in")


F = TypeVar("F", bound=Callable[..., Any])


class BoundWrapper(wrapt.BoundFunctionWrapper):  # type: ignore[misc, type-arg, unused-ignore]
    """A decorated method as an attribute of its instance or its class."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        owner = getattr(self.__wrapped__, "__self__", None)
        if owner is not None:
            return getattr, (owner, self.__name__)
        # A function of the class: a new proxy at each look-up, so that pickling it by name would find another one.
        path = self.__module__, self.__qualname__
        try:
            _find(*path)
        except (ImportError, AttributeError) as error:
            raise pickle.PicklingError(f"cannot pickle {self!r}: it is not found as {'.'.join(path)}") from error
        return _find, path

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        owner = getattr(self.__wrapped__, "__self__", None)
        if owner is None or isinstance(owner, type):
            return self
        from copy import deepcopy  # noqa: PLC0415 - hardly anybody copies a bound method

        return getattr(deepcopy(owner, memo), self.__name__)


class Wrapper(wrapt.FunctionWrapper):  # type: ignore[misc, type-arg, unused-ignore]
    """A decorated function; pickled by its qualified name and never really copied, as functions are.

    Args:
        wrapped: the function.
        wrapper: called with the function, the instance, and the arguments as a tuple and a dict.
    """

    __bound_function_wrapper__ = BoundWrapper

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__qualname__

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self


def _find(module: str, qualname: str) -> Any:
    return reduce(getattr, qualname.split("."), importlib.import_module(module))


def wrap_in(
    function: F, manager_of: Callable[[Any, tuple[Any, ...]], Any], note: Callable[[Any, Any], object] | None = None
) -> F:
    """Return a function or coroutine function that runs `function` inside a context manager made for each call.

    Args:
        function: what to run.
        manager_of: returns the context manager, for the instance and the arguments.
        note: takes the context manager and what the function has returned, before the manager is left.
    """
    if inspect.iscoroutinefunction(plain_function(function)):

        async def wrapper_async(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            with (manager := manager_of(instance, args)):
                result = await wrapped(*args, **kwargs)
                if note is not None:
                    note(manager, result)
                return result

        return cast("F", Wrapper(function, wrapper_async))

    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        with (manager := manager_of(instance, args)):
            result = wrapped(*args, **kwargs)
            if note is not None:
                note(manager, result)
            return result

    return cast("F", Wrapper(function, wrapper))


def plain_function(function: Any) -> Any:
    """Return what `inspect` should look at to tell what kind of function this is.

    A `classmethod` or `staticmethod` has the function inside, and an object that can be called has it in its class.
    """
    function = getattr(function, "__func__", function)
    if inspect.isroutine(function) or isinstance(function, type | partial) or not callable(function):
        return function
    return type(function).__call__


def name_of(instance: Any, default: str) -> str:
    """Return the attribute ``name`` of an instance, or `default` if there is none."""
    found = getattr(instance, "name", None)
    return found if isinstance(found, str) and found else default


def label_of(function: Callable[..., Any]) -> str:
    """Return the module and the qualified name of a function, of the function in a `partial`, or of an object's class."""
    found: Any = getattr(function, "__func__", function)
    while isinstance(found, partial):
        found = found.func
    if not hasattr(found, "__qualname__"):
        found = type(found)
    return f"{found.__module__}.{found.__qualname__}"
