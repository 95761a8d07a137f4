"""Restrictions: compiled to a range of received times, which the index answers, and a test for the rest."""

from __future__ import annotations

import base64
import operator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from ews_sync.simulator.errors import EwsError
from ews_sync.simulator.grammar import local
from ews_sync.simulator.item import microseconds, received_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from lxml import etree

    from ews_sync.simulator.fields import Value
    from ews_sync.simulator.item import Item

T = TypeVar("T")

_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "IsEqualTo": operator.eq,
    "IsNotEqualTo": operator.ne,
    "IsGreaterThan": operator.gt,
    "IsGreaterThanOrEqualTo": operator.ge,
    "IsLessThan": operator.lt,
    "IsLessThanOrEqualTo": operator.le,
}
_FIRST_KEY: Final = 1 << 40
"""Smaller than the key of every item that has a received time, larger than the others'."""
_LAST_KEY: Final = 1 << 120


@dataclass(frozen=True, slots=True)
class Range:
    """A half-open range of sort keys."""

    lower: int = 0
    upper: int = _LAST_KEY

    def meet(self, other: Range) -> Range:
        """Return what lies in both."""
        return Range(max(self.lower, other.lower), min(self.upper, other.upper))


@dataclass(frozen=True, slots=True)
class Selection:
    """Which items of a folder are wanted: those in the range that pass the test; None lets all pass."""

    range: Range = Range()
    test: Callable[[Item], bool] | None = None


class Compiler(Generic[T]):
    """Compiles search expressions over things of one kind. `reader` returns the function that reads a path's value."""

    def __init__(self, reader: Callable[[etree._Element], Callable[[T], Value]]) -> None:
        self._reader = reader

    def compile(self, expression: etree._Element) -> Callable[[T], bool]:
        """Return the test that an expression stands for.

        Raises:
            EwsError: it names a property that cannot be searched by, or a value that is none.

        """
        name = local(expression)
        children = list(expression)
        if name in {"And", "Or"}:
            tests = [self.compile(child) for child in children]
            return (lambda x: all(t(x) for t in tests)) if name == "And" else (lambda x: any(t(x) for t in tests))
        if name == "Not":
            test = self.compile(children[0])
            return lambda x: not test(x)
        if name in {"Near", "Excludes"}:
            raise EwsError("ErrorUnsupportedTypeForConversion", f"{name} is not there.")
        read = self._reader(children[0])
        if name == "Exists":
            return lambda x: read(x) is not None
        if name == "Contains":
            return _contains(expression, read)
        compare = _COMPARISONS[name]
        operand = children[1][0]
        if local(operand) != "Constant":
            other = self._reader(operand)
            return lambda x: _compare(compare, read(x), other(x))
        constant = Constant(str(operand.get("Value")))
        return lambda x: constant.compare(compare, read(x))


class Constant:
    """A constant of a request: read as what it is compared with."""

    def __init__(self, text: str) -> None:
        self._text = text

    def compare(self, compare: Callable[[Any, Any], bool], value: Value) -> bool:
        """Compare a value with it. Nothing compares with a value that is not there."""
        if value is None:
            return False
        if isinstance(value, bool):
            return compare(value, self._text.strip().casefold() in {"true", "1"})
        if isinstance(value, int):
            return compare(value, self._number())
        if isinstance(value, bytes):
            return compare(value, self._binary())
        if isinstance(value, str):
            return compare(value.casefold(), self._text.casefold())
        return compare(value, read_time(self._text))

    def _number(self) -> int:
        try:
            return int(self._text)
        except ValueError:
            raise _bad_value(self._text) from None

    def _binary(self) -> bytes:
        try:
            return base64.b64decode(self._text, validate=True)
        except ValueError:
            raise _bad_value(self._text) from None


def select(expression: etree._Element | None, compiler: Compiler[Item]) -> Selection:
    """Compile a restriction's expression into a range and a test.

    Raises:
        EwsError: as `Compiler.compile` does.

    """
    if expression is None:
        return Selection()
    terms = list(expression) if local(expression) == "And" else [expression]
    bounds = Range()
    rest = []
    for term in terms:
        found = _received_range(term)
        if found is None:
            rest.append(compiler.compile(term))
        else:
            bounds = bounds.meet(found)
    if not rest:
        return Selection(bounds)
    return Selection(bounds, lambda item: all(test(item) for test in rest))


def read_time(text: str) -> datetime:
    """Read a dateTime; without a zone it is UTC.

    Raises:
        EwsError: it is none.

    """
    try:
        parsed = datetime.fromisoformat(text.strip())
    except ValueError:
        raise _bad_value(text) from None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def _received_range(term: etree._Element) -> Range | None:
    """Return the range that a term stands for, None if it asks for more than the received time."""
    name = local(term)
    if name == "Exists":
        return Range(_FIRST_KEY) if term[0].get("FieldURI") == "item:DateTimeReceived" else None
    if name == "Not":
        undated = local(term[0]) == "Exists" and _received_range(term[0]) is not None
        return Range(upper=_FIRST_KEY) if undated else None
    if name not in _COMPARISONS or name == "IsNotEqualTo":
        return None
    path, operand = term[0], term[1][0]
    if path.get("FieldURI") != "item:DateTimeReceived" or local(operand) != "Constant":
        return None
    # The constant is compared with the time that is stored, which is more precise than the one on the wire.
    at = microseconds(read_time(str(operand.get("Value"))))
    here, after = received_key(at), received_key(at + 1)
    return {
        "IsEqualTo": Range(here, after),
        "IsGreaterThan": Range(after),
        "IsGreaterThanOrEqualTo": Range(here),
        "IsLessThan": Range(_FIRST_KEY, here),
        "IsLessThanOrEqualTo": Range(_FIRST_KEY, after),
    }[name]


def _contains(expression: etree._Element, read: Callable[[T], Value]) -> Callable[[T], bool]:
    wanted = str(expression[1].get("Value"))
    mode = expression.get("ContainmentMode", "FullString")
    is_exact = expression.get("ContainmentComparison", "Exact") == "Exact"
    wanted = wanted if is_exact else wanted.casefold()

    def test(thing: T) -> bool:
        value = read(thing)
        if value is None:
            return False
        text = str(value) if is_exact else str(value).casefold()
        if mode == "FullString":
            return text == wanted
        if mode == "Prefixed":
            return text.startswith(wanted)
        if mode == "PrefixOnWords":
            return any(word.startswith(wanted) for word in text.split())
        return wanted in text

    return test


def _compare(compare: Callable[[Any, Any], bool], left: Value, right: Value) -> bool:
    if left is None or right is None or type(left) is not type(right):
        return False
    return compare(left, right)


def _bad_value(text: str) -> EwsError:
    return EwsError("ErrorInvalidValueForProperty", f"The value {text!r} is not of the property's type.")
