"""JSON, read strictly: valid UTF-8, no key twice, no NaN, no half of a surrogate pair."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, NoReturn

from ews_sync.simulator.platform.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Sequence

_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
"""An escape that may be half of a pair; whether it is alone, only the parsed text says."""


def read_json(body: bytes | bytearray) -> object:
    """Read a body.

    Raises:
        ApiError: 400, with what is wrong with it.

    """
    try:
        value: object = _DECODER.decode(body.decode())
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not valid UTF-8 (at byte {error.start})") from error
    except RecursionError as error:
        raise ApiError(400, "the body is not valid JSON: it is nested too deeply") from error
    except ValueError as error:
        raise ApiError(400, f"the body is not valid JSON: {error}") from error
    if _SURROGATE.search(body):
        _refuse_lone_surrogates(value, "")
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
