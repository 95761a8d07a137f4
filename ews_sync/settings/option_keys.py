"""The values behind the command's options: what each takes, and its default.

This is each option by itself; what depends on several of them is in `load.py`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import PlainValidator, ValidationError, field_validator

from ews_sync.settings.addresses import checked_url, host_and_port, path_name
from ews_sync.settings.directories import why_not_writable
from ews_sync.settings.environment import Given
from ews_sync.settings.layers import Layered
from ews_sync.settings.problems import placeholder_in, placeholder_left, shown
from ews_sync.settings.values import Bind, LocalFilesFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ews_sync.settings.options import Option
    from ews_sync.settings.problems import Problems


def whole_number(allowed: str, low: int, high: int) -> Callable[[str], int]:
    """Make a parser of whole numbers from `low` to `high`, which `allowed` says in words."""

    def parse(text: str) -> int:
        # Not int(): it takes "1_0" and digits of other scripts.
        if text.isascii() and text.isdigit() and len(text) <= 18 and low <= int(text) <= high:
            return int(text)
        raise ValueError(f"must be {allowed}, not {shown(text)}")

    return parse


def _one_of(text: str, *words: str) -> str:
    if text not in words:
        raise ValueError(f"must be {' or '.join(shown(word) for word in words)}, not {shown(text)}")
    return text


def _switch(text: str) -> bool:
    return _one_of(text, "true", "false") == "true"


def _format(text: str) -> LocalFilesFormat:
    return LocalFilesFormat(_one_of(text, *LocalFilesFormat))


def _bind(text: str) -> Bind:
    return Bind(*host_and_port(text))


def _api_endpoint(text: str) -> str:
    checked_url(text, 'an address such as "https://mydomain.reinfer.io/api/"')
    return text.rstrip("/") + "/"


def _writable(text: str) -> Path:
    path = Path(text)
    if obstacle := why_not_writable(path):
        raise ValueError(obstacle)
    return path


def shard_number(name: str) -> int:
    """Give the number at the end of a shard's name.

    Raises:
        ValueError: there is none.
    """
    if name.startswith("$"):
        raise ValueError(f"must be a name such as ews-2, not {shown(name)}: the variable was not filled in")
    digits = re.search(r"[0-9]+\Z", name)
    if digits is None or len(digits.group()) > 18:
        raise ValueError(f"must end with the shard's number, such as ews-2, not {shown(name)}")
    return int(digits.group())


def _shard_name(text: str) -> str:
    shard_number(text)
    return text


Directory = Annotated[Path, PlainValidator(_writable)]
"""A directory that can be written; it need not be there yet."""
Switch = Annotated[bool, PlainValidator(_switch)]
"""A flag: `true` or `false` in the environment."""
_Name = Annotated[str, PlainValidator(path_name)]


class SharedKeys(Layered):
    """The options that every command takes. A field is named after its `Option.name`, and given as text."""

    bind: Annotated[Bind, PlainValidator(_bind)] = Bind()
    debug_level: Annotated[int, PlainValidator(whole_number("0, 1 or 2", 0, 2))] = 1
    local_files_format: Annotated[LocalFilesFormat, PlainValidator(_format)] = LocalFilesFormat.EML

    @field_validator("*", mode="before")
    @classmethod
    def _filled_in(cls, text: str) -> str:
        if not text:
            raise ValueError("must not be empty: give a value, or leave the option out")
        if left := placeholder_in(text):
            raise ValueError(placeholder_left(left))
        return text


class OptionKeys(SharedKeys):
    """The options of `run` and `check`. None where there is no default."""

    reinfer_api_endpoint: Annotated[str, PlainValidator(_api_endpoint)] | None = None
    local_files_prefix: Directory | None = None
    dead_letter_dir: Directory | None = None
    remote_config_owner: _Name | None = None
    remote_config_key: _Name | None = None
    shard_name: Annotated[str, PlainValidator(_shard_name)] | None = None
    total_shards: Annotated[int, PlainValidator(whole_number("a whole number, 1 or more", 1, 10**6))] | None = None
    restart_on_unrecoverable_errors: Switch = False


Keys = TypeVar("Keys", bound=SharedKeys)


def read_options(
    model: type[Keys],
    options: Iterable[Option],
    arguments: Mapping[str, str],
    environ: Mapping[str, str],
    problems: Problems,
) -> tuple[Keys, dict[Option, Given]]:
    """Give the options' values; and of each option that was given, right or wrong, the text that counted.

    What is wrong is added to `problems`, and has its default. In the environment, empty counts as unset.

    Raises:
        ValueError: there are arguments that are none of the options.
    """
    by_name = {option.name: option for option in options}
    if unknown := arguments.keys() - by_name.keys():
        raise ValueError(f"no such options: {', '.join(sorted(unknown))}")
    typed = {name: Given(text.strip(), by_name[name].text) for name, text in arguments.items()}
    exported = {
        name: Given(text, option.variable)
        for name, option in by_name.items()
        if (text := environ.get(option.variable, "").strip())
    }
    # What brought a value, for the problem lines; the values themselves are put together by the model.
    counted = {**exported, **typed}
    given = {option: counted[name] for name, option in by_name.items() if name in counted}
    wrong: dict[str, str] = {}

    def keys() -> Keys:
        return model.from_layers(command_line=texts(typed), environment=texts(exported))

    def texts(layer: dict[str, Given]) -> dict[str, str]:
        return {name: part.text for name, part in layer.items() if name not in wrong}

    try:
        return keys(), given
    except ValidationError as error:
        details = error.errors(include_url=False)
        wrong.update({str(detail["loc"][0]): str(detail["ctx"]["error"]) for detail in details})
    for option, part in given.items():
        if option.name in wrong:
            problems.add(part.label, wrong[option.name])
    return keys(), given
