"""Checks that a request follows the schema, as strictly as Exchange does: names, their order, values, attributes.

The tables are in `grammar_tables`. A content model is written like a DTD's: `m:ItemShape, (m:A | m:B)?, t:C*`. An
element's type has the element's local name unless the model says otherwise, as in `m:FolderIds=BaseFolderIds`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from ews_sync.simulator.wire import MESSAGES_NS, TYPES_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lxml import etree

    SimpleType: TypeAlias = Callable[[str], bool]

_NAMESPACES: Final = {MESSAGES_NS: "m", TYPES_NS: "t"}
_XSI: Final = "{http://www.w3.org/2001/XMLSchema-instance}"
_TOKEN: Final = re.compile(r"\s*([mt]:\w+(?:=\w+)?|[(),|?*+])")
_LIMITS: Final = {"?": (0, 1), "*": (0, None), "+": (1, None)}


class Violation(Exception):  # noqa: N818 - the word in Exchange's own answer
    """Where (`line`) and how (`text`) a request departs from the schema."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.text = text


@dataclass(frozen=True, slots=True)
class ElementParticle:
    """One element: its name and its type's."""

    name: str
    type_name: str


@dataclass(frozen=True, slots=True)
class GroupParticle:
    """Particles one after the other, or one of them."""

    particles: tuple[Repeated, ...]
    is_choice: bool


@dataclass(frozen=True, slots=True)
class Repeated:
    """A particle and how often it can come; `most` None is without end."""

    particle: ElementParticle | GroupParticle
    least: int = 1
    most: int | None = 1


EMPTY: Final = Repeated(GroupParticle((), is_choice=False))


@dataclass(frozen=True, slots=True)
class ElementType:
    """What an element can hold: children (`content`) or text (`text`), and attributes, required ones marked by `!`.

    With `is_open` its content is not looked at.
    """

    content: Repeated = EMPTY
    text: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    is_open: bool = False


@dataclass(frozen=True, slots=True)
class Grammar:
    """Types by name, and the simple types that their texts and attributes refer to."""

    types: Mapping[str, ElementType]
    simple: Mapping[str, SimpleType]

    def check(self, element: etree._Element, type_name: str) -> None:
        """Check an element and all below it.

        Raises:
            Violation: it departs from its type.

        """
        kind = self.types[type_name]
        self._check_attributes(element, kind)
        if kind.is_open:
            return
        if kind.content is EMPTY and kind.text is None and len(element) == 0 and element.text is None:
            return  # an id, for one: requests have hundreds of them
        children = [child for child in element if isinstance(child.tag, str)]
        if kind.text is not None:
            if children:
                raise Violation(line_of(element), f"The element '{local(element)}' cannot contain child elements.")
            value = "".join(_texts(element))
            if not self.simple[kind.text](value):
                raise Violation(line_of(element), f"The '{local(element)}' element is invalid - The value '{value}'.")
            return
        # Between elements there can be white space; where there can be no elements, nothing at all.
        if any(text.strip() or kind.content is EMPTY for text in _texts(element)):
            raise Violation(line_of(element), f"The element '{local(element)}' cannot contain text.")
        match = _Match(children)
        end = match.take(kind.content, 0)
        if end != len(children):
            raise self._misfit(element, children, match)
        for child, particle in zip(children, match.assigned(end), strict=True):
            self.check(child, particle.type_name)

    def _check_attributes(self, element: etree._Element, kind: ElementType) -> None:
        given = {str(name): str(value) for name, value in element.items()}
        for name, text in given.items():
            if name == f"{_XSI}schemaLocation":
                continue
            simple = kind.attributes.get(name) or kind.attributes.get(f"{name}!")
            if simple is None:
                raise Violation(line_of(element), f"The '{name}' attribute is not declared.")
            if not self.simple[simple](text):
                raise Violation(line_of(element), f"The '{name}' attribute is invalid - The value '{text}'.")
        for name in kind.attributes:
            if name[-1] == "!" and name[:-1] not in given:
                raise Violation(line_of(element), f"The required attribute '{name[:-1]}' is missing.")

    @staticmethod
    def _misfit(element: etree._Element, children: list[etree._Element], match: _Match) -> Violation:
        expected = ", ".join(sorted(match.expected))
        if match.furthest < len(children):
            child = children[match.furthest]
            return Violation(
                line_of(child),
                f"The element '{local(element)}' has invalid child element '{local(child)}'. "
                f"List of possible elements expected: '{expected}'.",
            )
        return Violation(
            line_of(element),
            f"The element '{local(element)}' has incomplete content. List of possible elements expected: '{expected}'.",
        )


class _Match:
    """One attempt to lay a content model over an element's children. The models are deterministic: no going back."""

    def __init__(self, children: list[etree._Element]) -> None:
        self._names = [qualified(child) for child in children]
        self._assigned: dict[int, ElementParticle] = {}
        self.furthest = 0
        self.expected: set[str] = set()

    def take(self, repeated: Repeated, at: int) -> int | None:
        """Return where the particle ends that begins at `at`; None if it is not there often enough."""
        count = 0
        while repeated.most is None or count < repeated.most:
            end = self._once(repeated.particle, at)
            if end is None or (end == at and count >= repeated.least):
                break
            at, count = end, count + 1
        return at if count >= repeated.least else None

    def assigned(self, count: int) -> list[ElementParticle]:
        """Return the particles of the children."""
        return [self._assigned[position] for position in range(count)]

    def _once(self, particle: ElementParticle | GroupParticle, at: int) -> int | None:
        if isinstance(particle, ElementParticle):
            if at < len(self._names) and self._names[at] == particle.name:
                self._assigned[at] = particle
                self._reach(at + 1)
                return at + 1
            self._reach(at)
            if at == self.furthest:
                self.expected.add(particle.name)
            return None
        if particle.is_choice:
            ends = (self.take(option, at) for option in particle.particles)
            return next((end for end in ends if end is not None), None)
        end: int | None = at
        for part in particle.particles:
            if end is not None:
                end = self.take(part, end)
        return end

    def _reach(self, at: int) -> None:
        if at > self.furthest:
            self.furthest = at
            self.expected = set()


def model(text: str) -> Repeated:
    """Read a content model."""
    tokens = [found[1] for found in _TOKEN.finditer(text)]
    particle, end = _read_group(tokens, 0)
    if end != len(tokens):
        raise ValueError(f"not a content model: {text}")
    return particle


def _read_group(words: list[str], at: int) -> tuple[Repeated, int]:
    parts: list[Repeated] = []
    is_choice = False
    while at < len(words) and words[at] != ")":
        word = words[at]
        if word in {",", "|"}:
            is_choice = word == "|"
            at += 1
            continue
        if word == "(":
            inner, at = _read_group(words, at + 1)
            particle: ElementParticle | GroupParticle = inner.particle
        else:
            name, _, type_name = word.partition("=")
            particle = ElementParticle(name, type_name or name[2:])
        at += 1
        least, most = 1, 1
        if at < len(words) and words[at] in _LIMITS:
            least, most = _LIMITS[words[at]]  # type: ignore[assignment]
            at += 1
        parts.append(Repeated(particle, least, most))
    return Repeated(GroupParticle(tuple(parts), is_choice)), at


def qualified(element: etree._Element) -> str:
    """Return an element's name as the models have it: m:FindItem; another namespace is spelled out."""
    namespace, _, name = str(element.tag).rpartition("}")
    prefix = _NAMESPACES.get(namespace.lstrip("{"))
    return f"{prefix}:{name}" if prefix else str(element.tag)


def local(element: etree._Element) -> str:
    """Return an element's name without its namespace."""
    return str(element.tag).rpartition("}")[2]


def line_of(element: etree._Element) -> int:
    """Return the line that an element is on."""
    return int(element.sourceline or 0)


def _texts(element: etree._Element) -> Iterator[str]:
    if element.text:
        yield str(element.text)
    for child in element:
        if child.tail:
            yield str(child.tail)
