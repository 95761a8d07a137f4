"""The handbook's reference of options, variables and keys, made from their descriptions.

`python -m ews_sync.settings.reference docs` renews what is made from the settings below `docs`: the parts of
`configuration.md` between the marks, and `config.schema.json`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ews_sync.settings.keys import SECRETS, BucketKeys, ConfigKeys, MailboxKeys, allowed_text
from ews_sync.settings.options import API_TOKEN, CONFIG_PATH, DEMO_ONLY, GROUPS, variable_for
from ews_sync.settings.schema import config_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from ews_sync.settings.options import Option, Variable

PAGE, SCHEMA = "configuration.md", "config.schema.json"
UNITS = {
    "port": "",
    "poll_frequency": "seconds",
    "poll_message_sleep": "seconds",
    "max_concurrent_uploads": "uploads",
    "emails_per_folder": "emails",
    "reinfer_batch_size": "emails",
}
"""What the numbers among the keys count."""
_NONE = "none"


def options_reference() -> str:
    """Give the options of the command, and the variables that stand alone, as Markdown."""
    parts = []
    for title, group in GROUPS:
        parts.append(f"### {title[0].upper()}{title[1:]}")
        parts += [_option(option) for option in group]
    parts.append("### Variables without an option")
    parts += [_variable(variable) for variable in (CONFIG_PATH, API_TOKEN)]
    parts.append("### Options of the demo")
    parts.append(_table("option", "default", "meaning", rows=[_demo_row(option) for option in DEMO_ONLY]))
    return "\n\n".join(parts)


def keys_reference() -> str:
    """Give the keys of the config file as Markdown."""
    parts = [_key(name, field) for name, field in ConfigKeys.model_fields.items()]
    parts.append("### Keys of a mailbox {#mailbox}")
    for name, field in MailboxKeys.model_fields.items():
        # What `bucket` takes is said by its own two keys.
        parts += [*_keys("bucket.", BucketKeys)] if name == "bucket" else [_key(name, field)]
    return "\n\n".join(parts)


def renewed(page: str) -> str:
    """Give the page with its made parts made anew. Raises `ValueError` where the marks are missing."""
    for name, text in (("options", options_reference()), ("keys", keys_reference())):
        begin, end = (f"<!-- {side} of what is made from the {name} -->" for side in ("begin", "end"))
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"the page lacks {begin} or {end}")
        page = f"{before}{begin}\n\n{text}\n\n{end}{after}"
    return page


def schema_text() -> str:
    """Give the schema as it stands in the handbook."""
    return json.dumps(config_schema(), indent=2) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Renew the files in the directory that is named."""
    docs = Path(arguments[0] if arguments else "docs")
    page = docs / PAGE
    page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")
    (docs / SCHEMA).write_text(schema_text(), encoding="utf-8")


# --- Entries ---------------------------------------------------------------------------------------------------------


def _option(option: Option) -> str:
    takes = "nothing; the variable takes `true` or `false`" if option.flag else f"`{option.metavar}`"
    row = (takes, _code(option.default), _code(option.variable))
    return _entry(option.text, option.text.removeprefix("--"), option.help, ("takes", "default", "variable"), row)


def _variable(variable: Variable) -> str:
    row = ("a secret" if variable.secret else "a path", f"`{variable.file}`" if variable.secret else _NONE)
    anchor = variable.name.lower().replace("_", "-")
    return _entry(variable.name, anchor, f"{variable.help}.", ("takes", "or a file, named by"), row)


def _demo_row(option: Option) -> tuple[str, str, str]:
    return f"`{option.text}`", _code(option.default), option.help


def _keys(prefix: str, model: type[BaseModel]) -> Iterator[str]:
    return (_key(f"{prefix}{name}", field) for name, field in model.model_fields.items())


def _key(name: str, field: FieldInfo) -> str:
    heads, row = ["takes", "default"], [allowed_text(field), _default(field)]
    if UNITS.get(name):
        heads.append("unit")
        row.append(UNITS[name])
    if variable := variable_for(name):
        heads.append("variable")
        row.append(f"`{variable.name}`" + (f", or `{variable.file}`" if variable.secret else ""))
    if name in SECRETS:
        heads.append("secret")
        row.append("yes: never shown")
    return _entry(name, name.replace(".", "-"), field.description or "", heads, row)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ((), {}):
        return _NONE
    return f"`{json.dumps(value)}`"


def _entry(title: str, anchor: str, text: str, heads: Sequence[str], row: Sequence[str]) -> str:
    return f"#### `{title}` {{#{anchor}}}\n\n{text}\n\n{_table(*heads, rows=[row])}"


def _code(text: str) -> str:
    return f"`{text}`" if text else _NONE


def _table(*heads: str, rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


if __name__ == "__main__":
    main(sys.argv[1:])
