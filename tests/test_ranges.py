"""Arguments are checked by their types, once, and errors name them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import pytest
from torch import nn

from gan_zoo.ranges import (
    Count,
    Decay,
    Positive,
    Range,
    UnfitArgument,
    checked,
    fits,
    in_words,
    within,
)


class Base:
    @checked
    def __init__(self, width: Count = 1, **options: Any) -> None:
        self.width = width


class Built(Base):
    @checked
    def __init__(
        self,
        *args: Any,
        rate: Positive | None = None,
        mode: Literal["warn", "stop"] = "warn",
        network: nn.Module | None = None,
        make: Callable[[], nn.Module] = nn.Identity,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.rate = rate


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width is 0; it has to be a whole number from 1 to 1000000."),
        ({"width": True}, "width is true; it has to be a whole number from 1 to 1000000."),
        ({"rate": 0}, "rate is 0; it has to be a number above 0, or null."),
        ({"rate": float("nan")}, "rate is nan; it has to be a number above 0, or null."),
        ({"mode": "panic"}, "mode is panic; it has to be warn or stop."),
        ({"network": "mlp"}, "network is mlp; it has to be options with a _target_, or null."),
        ({"make": 3}, "make is 3; it has to be options with a _target_."),
    ],
)
def test_an_argument_that_is_not_of_its_type_is_named(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnfitArgument) as raised:
        Built(**arguments)
    assert str(raised.value) == message


def test_arguments_of_their_types_are_handed_on() -> None:
    built = Built(4, rate=1, mode="stop", network=nn.ReLU(), make=nn.Tanh)
    assert (built.width, built.rate) == (4, 1)


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (1.0, int, False),
        (1, float, True),
        (10**400, float, False),
        ([1, 2], Sequence[Count], True),
        ([1, 0], Sequence[Count], False),
        ([0.5, 0.9], tuple[Decay, Decay], True),
        ([0.5], tuple[Decay, Decay], False),
        ("32", Literal["32", 32], True),
        (32, Literal["32", 32], True),
        (True, Literal[1, 3], False),
        ("a", str | None, True),
        (5, str | None, False),
        (object(), Any, True),
    ],
)
def test_fits(value: object, kind: Any, expected: bool) -> None:
    assert fits(value, kind) is expected


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Annotated[int, Range(1, 10)] | None, "a whole number from 1 to 10, or null"),
        (Decay, "a number from 0 and below 1"),
        (Annotated[float, Range(0, 1, above=True)], "a number above 0 and at most 1"),
        # An option that may be text or a number is listed once.
        (Literal["16", "32", "64", 16, 32, 64], "16, 32 or 64"),
        (list[int], "a list, each a whole number"),
        (bool | Literal["warn"] | None, "true, false, warn or null"),
        (str | list[bool] | None, "text, or a list, each true or false, or null"),
        (Annotated[int, Range(1, 9)] | Literal[-1], "a whole number from 1 to 9, or -1"),
    ],
)
def test_types_in_words(kind: Any, words: str) -> None:
    assert in_words(kind) == words


def test_a_nested_argument_is_named_by_what_holds_it() -> None:
    with pytest.raises(UnfitArgument, match=r"^model\.width is 0; it"), within("model"):
        Base(width=0)


def test_ranges_know_neither_torch_nor_hydra() -> None:
    script = (
        "import sys, gan_zoo.ranges; "
        "print(*{'torch', 'hydra', 'omegaconf', 'pytorch_lightning'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == []
