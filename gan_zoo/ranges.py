"""What arguments may be: said once, in a signature, and checked there.

    class WGAN:
        @checked
        def __init__(self, clip_value: Positive = 0.01) -> None: ...

    WGAN(clip_value=-1)    # ValueError: clip_value is -1; it has to be a number above 0.

The command line finds the same types in the same signatures, and names the option instead.

pydantic's TypeAdapter, tried in strict mode, refuses a YAML list where a tuple is meant, and
explains a union by a sentence on each part in Python's own words.
"""

import collections.abc
import contextlib
import functools
import inspect
import math
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    ParamSpec,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

_LISTS = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)
_LARGEST_FLOAT32 = 3.4028234663852886e38

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Range(NamedTuple):
    """Where a number has to lie, as a mark of its type: ``Annotated[float, Range(0, 1)]``.

    Attributes:
        low, high: the ends.
        above, below: whether the low, the high end is excluded.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether the number lies there."""
        return (
            self.low <= value <= self.high
            and not (self.above and value == self.low)
            and not (self.below and value == self.high)
        )

    def __repr__(self) -> str:
        excluded = [f"{end}=True" for end in ("above", "below") if getattr(self, end)]
        return f"Range({', '.join([str(self.low), str(self.high), *excluded])})"

    def __str__(self) -> str:
        low = f" {'above' if self.above else 'from'} {self.low}" if self.low > -math.inf else ""
        if self.high == math.inf:
            return low
        if self.below:
            return f"{low}{' and' if low else ''} below {self.high}"
        if self.above or not low:
            return f"{low}{' and' if low else ''} at most {self.high}"
        return f"{low} to {self.high}"


Count = Annotated[int, Range(1, 10**6)]
Natural = Annotated[int, Range(0, 10**9)]
Few = Annotated[int, Range(0, 100)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Steps = Annotated[int, Range(1, 2**32 - 1)]
Share = Annotated[float, Range(0, 1)]
PositiveShare = Annotated[float, Range(0, 1, above=True)]
Decay = Annotated[float, Range(0, 1, below=True)]
NonNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, above=True)]


class UnfitArgument(ValueError):
    """An argument that can't be.

    Args:
        argument: its name in the signature.
        problem: the rest of the sentence that the name begins, such as "is 30; it has to be ...".

    Attributes:
        argument, problem: these. The command line puts the option's name in the argument's place.
    """

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(f"{argument} {problem}")
        self.argument = argument
        self.problem = problem


def checked(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Has a function raise UnfitArgument for the first argument that is not of its type."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checking(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        kinds = kinds_of(function)
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if name in kinds:
                refuse_unfit(name, value, kinds[name])
        return function(*args, **kwargs)

    return checking


@functools.cache
def kinds_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of a function's arguments, but for those that it hands on; Any for no type."""
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    handed_on = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {p.name: hints.get(p.name, Any) for p in parameters if p.kind not in handed_on}


def takers_of(found: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """The functions that take the keyword arguments of a class or function.

    Of a class they are its constructor and those of the classes that it extends, up to the first
    that hands none on.
    """
    functions = [found]
    if isinstance(found, type):
        functions = [vars(c)["__init__"] for c in found.__mro__ if "__init__" in vars(c)]
    for function in functions:
        yield function
        if not hands_on(function):
            return


def hands_on(function: Callable[..., Any]) -> bool:
    """Whether a function takes keyword arguments that it does not name."""
    parameters = inspect.signature(function).parameters.values()
    return any(p.kind == p.VAR_KEYWORD for p in parameters)


def refuse_unfit(argument: str, value: object, kind: Any) -> None:
    """Raises UnfitArgument unless the value is of the type; see ``fits``."""
    if not fits(value, kind):
        raise UnfitArgument(argument, f"is {shown(value)}; it has to be {in_words(kind)}.")


def fits(value: object, kind: Any) -> bool:
    """Whether a value is of a type.

    Args:
        value: plain, or an object, which is taken for what it is given as: an object is only
            refused where plain text or a boolean is expected.
        kind: a type, as of a signature. A boolean is no number, nor is nan or infinity; a whole
            number is a number.
    """
    if kind is Any:
        return True
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        ranges = [mark for mark in parts[1:] if isinstance(mark, Range)]
        return fits(value, parts[0]) and all(r.holds(value) for r in ranges)  # type: ignore[arg-type]
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    if (origin or kind) in _LISTS:
        if isinstance(value, str) or not isinstance(value, collections.abc.Sequence):
            return False
        if origin is tuple and parts[1:] != (...,):
            return len(value) == len(parts) and all(map(fits, value, parts))
        return not parts or all(fits(item, parts[0]) for item in value)
    if kind in (int, float):
        number = isinstance(value, (int, kind)) and not isinstance(value, bool)
        return number and -_LARGEST_FLOAT32 <= value <= _LARGEST_FLOAT32  # type: ignore[operator]
    if isinstance(value, str):
        return kind not in (bool, types.NoneType) and not is_built(kind)
    if isinstance(value, (bool, int, float, types.NoneType)):
        return kind in (bool, str, types.NoneType) and isinstance(value, kind)
    return kind not in (bool, str, types.NoneType)


def is_built(kind: Any) -> bool:
    """Whether values of the type are objects or functions, not plain data."""
    if get_origin(kind) is collections.abc.Callable:
        return True
    return isinstance(kind, type) and kind is not str and not issubclass(kind, Path)


def in_words(kind: Any) -> str:
    """A type as people say it: "a whole number from 1 to 10, or null"."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return in_words(parts[0]) + "".join(str(mark) for mark in parts[1:])
    if origin in (Union, types.UnionType, Literal) or kind is bool:
        choices = list(dict.fromkeys(_choices(kind)))
        phrases = [choice for choice in choices if " " in choice or choice == "text"]
        words = [choice for choice in choices if choice not in phrases]
        if words[1:]:
            words = [f"{', '.join(words[:-1])} or {words[-1]}"]
        return ", or ".join([*phrases, *words])
    if (origin or kind) in _LISTS:
        many = f"a list of {len(parts)}" if origin is tuple and parts[1:] != (...,) else "a list"
        return f"{many}, each {in_words(parts[0])}" if parts else many
    plain = {
        int: "a whole number",
        float: "a number",
        str: "text",
        types.NoneType: "null",
    }
    if kind in plain:
        return plain[kind]
    return "options with a _target_" if is_built(kind) else "text"


def _choices(kind: Any) -> Iterator[str]:
    """What a type is one of, each in words."""
    parts = get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):
        for part in parts:
            yield from _choices(part)
    elif get_origin(kind) is Literal:
        yield from map(shown, parts)
    else:
        yield from ("true", "false") if kind is bool else (in_words(kind),)


def shown(value: object) -> str:
    """A value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


@contextlib.contextmanager
def within(name: str) -> Iterator[None]:
    """Names UnfitArguments raised meanwhile by the argument that holds theirs: "name.argument"."""
    try:
        yield
    except UnfitArgument as error:
        raise UnfitArgument(f"{name}.{error.argument}", error.problem) from error
