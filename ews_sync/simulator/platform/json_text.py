"""JSON, read strictly: valid UTF-8, no key twice, no NaN, no half of a surrogate pair."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NoReturn

from ews_sync.simulator.platform.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Sequence


def read_json(body: bytes | bytearray) -> object:
    """Read a body.

    Raises:
        ApiError: 400, with what is wrong with it.

    """
    try:
        value: object = _DECODER.decode(body.decode())
        # The body is valid UTF-8, so only an escape can have brought half of a pair. To look at what was read is
        # quicker than to look for escapes: of a text it is known whether it is ASCII.
        if not _is_unicode(value):
            _refuse_lone_surrogates(value, "")
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not valid UTF-8 (at byte {error.start})") from error
    except RecursionError as error:
        raise ApiError(400, "the body is not valid JSON: it is nested too deeply") from error
    except ValueError as error:
        raise ApiError(400, f"the body is not valid JSON: {error}") from error
    return value


def write_json(value: object) -> str:
    """Write a value that was read, or made of such values."""
    return _ENCODER.encode(value)


def _unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the key {json.dumps(name)} stands twice in one object")
            seen.add(name)
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def _is_unicode(value: object) -> bool:
    """Tell whether no text in a value has a lone surrogate."""
    if isinstance(value, str):
        return value.isascii() or _has_utf8(value)
    if isinstance(value, dict):
        return all(map(_is_unicode, value)) and all(map(_is_unicode, value.values()))
    return not isinstance(value, list) or all(map(_is_unicode, value))


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_lone_surrogates(value: object, path: str) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ApiError(400, f"{path.removeprefix('.')}: a lone surrogate at character {error.start}") from error
    elif isinstance(value, dict):
        for name, inner in value.items():
            _refuse_lone_surrogates(name, f"{path} (a key)")
            _refuse_lone_surrogates(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _refuse_lone_surrogates(inner, f"{path}[{number}]")
