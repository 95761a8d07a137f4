"""The JSON Schema of the config file, made from the keys: for editors, and for whoever writes configs by a program.

The dialect is draft 2020-12. Shapes, ranges, defaults and descriptions are those of `keys.py`; what is added here is
what the loader checks besides, as far as a schema can say it. It is about the file by itself: a value that the
environment replaces is looked at here, and one that only the environment gives is not missed. In one thing it is the
stricter of the two: the loader passes by an unknown key whose value is null.
"""

from __future__ import annotations

from typing import Any

from ews_sync.model import StartFrom
from ews_sync.settings.addresses import LONGEST_ADDRESS
from ews_sync.settings.exchange import NO_TENANT
from ews_sync.settings.keys import LONGEST_NAME, SECRETS, ConfigKeys

Schema = dict[str, Any]
"""A JSON Schema, as Python has it."""

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_PLACEHOLDER = "<[A-Za-z][A-Za-z0-9_-]*>"
_HTTP = "[Hh][Tt][Tt][Pp][Ss]?://[^\\s/?#@]+"
_HTTPS = "[Hh][Tt][Tt][Pp][Ss]://[^\\s/?#@]+"
_ADDRESS = "\\S+@[^\\s@]+"
_CONTROL = "\\u0000-\\u001f\\u007f"
_NAME = f"^\\s*[^\\s{_CONTROL}][^{_CONTROL}]{{0,{LONGEST_NAME - 1}}}\\s*$"
_WHOLE = "^\\s*\\+?[0-9][0-9_]*(\\.0*)?\\s*$"
_NUMBER = "^\\s*\\+?([0-9][0-9_]*\\.?[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?\\s*$"
_DATE = "[0-9]{4}(-?[0-9]{2}-?[0-9]{2}|-?[Ww][0-9]{2}(-?[1-7])?)"
_TIME = "[0-9]{2}(:?[0-9]{2}(:?[0-9]{2}([.,][0-9]+)?)?)?([Zz]|[+-][0-9]{2}(:?[0-9]{2}(:?[0-9]{2}(\\.[0-9]+)?)?)?)?"


def _without(pattern: str) -> Schema:
    return {"not": {"type": "string", "pattern": pattern}}


_ALL_PLACEHOLDER = _without(f"^\\s*{_PLACEHOLDER}\\s*$")
"""A password or a folder may have such a thing in its name in earnest: there it has to be all that there is."""

_TEXTS: dict[str, Schema] = {
    "ews_endpoint": {"pattern": f"^\\s*{_HTTP}/+[^\\s?#/][^\\s?#]*\\s*$"},
    "host": {"pattern": f"^\\s*({_HTTP}/?|[^\\s/?#@:\\[\\]]+|\\[?[0-9A-Fa-f.]*:[0-9A-Fa-f:.]+(%\\w+)?\\]?)\\s*$"},
    "owner": {"pattern": _NAME},
    "name": {"pattern": _NAME},
    "audit_email": {"pattern": f"^\\s*{_ADDRESS}\\s*$"},
}
"""What a text must be like besides not being empty."""

_EXAMPLES: dict[str, list[object]] = {
    "ews_endpoint": ["https://outlook.office365.com/EWS/Exchange.asmx"],
    "host": ["https://mail.example.com"],
    "auth_user": ["svc-ews@example.com", "EXAMPLE\\svc-ews"],
    "auth_oauth_authority": ["https://login.microsoftonline.com/contoso.com/"],
    "start_timestamp": ["2020-01-01T00:00:00+00:00"],
    "folder_allowlist": [[["Inbox"], ["Archive", "2024"]]],
    "folder_denylist": [[["Junk Email"], ["Deleted Items"]]],
}


def config_schema() -> Schema:
    """Give the schema of the config file."""
    schema = ConfigKeys.model_json_schema()
    definitions = schema.pop("$defs")
    mailbox, bucket = definitions["MailboxKeys"], definitions["BucketKeys"]
    properties = _properties(schema)
    properties["mailboxes"] |= {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": f"^{_ADDRESS}$", "maxLength": LONGEST_ADDRESS, **_without(f"\\s|{_PLACEHOLDER}")},
        "additionalProperties": {"anyOf": [{"$ref": "#/$defs/mailbox"}, {"type": "null"}]},
    }
    properties["auth_type"] = _required(properties["auth_type"])
    of_mailbox = _properties(mailbox)
    of_mailbox["bucket"] = {"$ref": "#/$defs/bucket", "description": of_mailbox["bucket"]["description"]}
    return {
        "$schema": DIALECT,
        "title": "The config file of ews-sync",
        "type": "object",
        "properties": properties,
        "required": ["auth_type", "mailboxes"],
        "additionalProperties": False,
        "allOf": [_not_both("ews_endpoint", "host"), _of_oauth2()],
        "$defs": {
            "mailbox": _object("A mailbox, behind its address.", of_mailbox, "bucket"),
            "bucket": _object("Where the mailbox's mail is put.", _required_all(_properties(bucket)), "owner", "name"),
        },
    }


def _object(description: str, properties: Schema, *required: str) -> Schema:
    return {
        "description": description,
        "type": "object",
        "properties": properties,
        "required": [*required],
        "additionalProperties": False,
    }


def _properties(model: Schema) -> Schema:
    return {key: _property(key, value) for key, value in model["properties"].items()}


def _property(key: str, made: Schema) -> Schema:
    """Give what a key takes: as pydantic has it, and what the loader takes and refuses besides."""
    result: Schema = {"description": made["description"]}
    if made.get("default") not in (None, []):
        result["default"] = made["default"]
    if key in _EXAMPLES:
        result["examples"] = _EXAMPLES[key]
    if key in SECRETS:
        result["writeOnly"] = True
    return result | _shape(key, made)


def _shape(key: str, made: Schema) -> Schema:
    only = next((option for option in made.get("anyOf", ()) if option.get("type") != "null"), made)
    match only:
        case {"enum": values}:
            shape: Schema = {"enum": [*values, None]}
        case {"$ref": "#/$defs/StartFrom"}:
            shape = {"enum": [*StartFrom, None]}
        case {"type": "boolean"}:
            words = {"type": "string", "pattern": f"^\\s*({_any_case('true')}|{_any_case('false')})\\s*$"}
            shape = {"anyOf": [{"enum": [True, False, "true", "false", None]}, words]}
        case {"type": "integer" | "number" as kind}:
            limits = {"minimum": made.get("ge"), "maximum": made.get("le")}
            shape = {name: limit for name, limit in limits.items() if limit is not None}
            shape |= {"type": [kind, "string", "null"], "pattern": _WHOLE if kind == "integer" else _NUMBER}
        case {"type": "array"}:
            path = {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1, **_ALL_PLACEHOLDER}}
            shape = {"type": ["array", "null"], "items": path}
        case {"format": "date-time"}:
            shape = {"type": ["string", "null"], "pattern": f"^\\s*{_DATE}([^0-9]{_TIME})?\\s*$"}
        case {"type": "string"}:
            shape = {"type": ["string", "null"], **_text(key)}
        case _:
            # Objects: they are put together where they are used.
            shape = {}
    return shape


def _text(key: str) -> Schema:
    if key in SECRETS:
        return {"minLength": 1, **_ALL_PLACEHOLDER}
    return {"pattern": "\\S", **_TEXTS.get(key, {}), **_without(_PLACEHOLDER)}


def _any_case(word: str) -> str:
    """Give a pattern for a word however it is written: JSON Schema's patterns have no flags."""
    return "".join(f"[{letter.upper()}{letter}]" for letter in word)


def _required(made: Schema) -> Schema:
    """Take null out of what a key takes, where null would mean that it is missing."""
    result = dict(made)
    if "enum" in made:
        result["enum"] = [value for value in made["enum"] if value is not None]
    else:
        result["type"] = "string"
    return result


def _required_all(properties: Schema) -> Schema:
    return {key: _required(made) for key, made in properties.items()}


# --- What depends on several keys ------------------------------------------------------------------------------------


def _given(key: str) -> Schema:
    """Match a config that has the key: null counts as not given."""
    return {"required": [key], "properties": {key: {"not": {"type": "null"}}}}


def _not_both(one: str, other: str) -> Schema:
    return {"not": {"allOf": [_given(one), _given(other)]}}


def _of_oauth2() -> Schema:
    """Say what holds with OAuth 2 only; with other ways to log in its keys are not looked at."""
    tenants = "|".join(_any_case(word) for word in sorted(NO_TENANT))
    secret, certificate = "auth_oauth_client_secret", "auth_oauth_client_credential_"
    return {
        "if": {"required": ["auth_type"], "properties": {"auth_type": {"const": "oauth2"}}},
        "then": {
            "properties": {
                "auth_oauth_authority": {
                    "pattern": f"^\\s*{_HTTPS}/+[^\\s?#/][^\\s?#]*\\s*$",
                    **_without(f"^\\s*{_HTTPS}/+({tenants})/*\\s*$"),
                },
                f"{certificate}thumbprint": {"pattern": "^[\\s:]*([0-9A-Fa-f][\\s:]*){40}$"},
            },
            "allOf": [
                _not_both(secret, f"{certificate}{part}") for part in ("private_key", "thumbprint", "certificate")
            ],
        },
    }
