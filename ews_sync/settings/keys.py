"""Every key of the JSON config file: its name, kind, range, default and description.

This is the file's shape and nothing more; what depends on several keys is in `exchange.py` and `load.py`. The
descriptions are the documentation's source.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
)

from ews_sync.model import StartFrom
from ews_sync.settings.layers import Layered
from ews_sync.settings.problems import KeyPath, did_you_mean, not_allowed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

    from ews_sync.settings.config_file import Tree


LONGEST_NAME = 250
"""Bytes. Names become parts of paths and of log lines; with an address they have to fit into the longest path."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a key takes, in words that fit behind "must be"."""

    text: str


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("true and false are not numbers")  # noqa: TRY004 - pydantic wants a ValueError
    return value.strip() if isinstance(value, str) else value


def _yes_or_no(value: object) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
        return value.strip().lower() == "true"
    raise ValueError("neither true nor false")


def _name(value: str) -> str:
    if not value.isprintable() or len(value.encode()) > LONGEST_NAME:
        raise ValueError("no name")
    return value


def timestamp(value: object) -> datetime:
    """Read a time in ISO 8601; one without an offset is in UTC. The result is in UTC.

    Raises:
        ValueError: it is something else, or lies outside the years 1 to 9999.
    """
    if not isinstance(value, str):
        raise ValueError("not a text")  # noqa: TRY004 - pydantic wants a ValueError
    time = datetime.fromisoformat(value.strip())
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("outside the calendar") from error


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1), Allowed("a text that is not empty")]
Name = Annotated[
    Text, AfterValidator(_name), Allowed(f"a name of 1 to {LONGEST_NAME} bytes, without control characters")
]
Secret = Annotated[SecretStr, Field(min_length=1), Allowed("a text that is not empty")]
Whole = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Choice = Allowed("true or false")
# Of a list, the first mistake is enough: a note on each of 200,000 takes hundreds of megabytes.
FolderPath = Annotated[tuple[Annotated[str, StringConstraints(min_length=1)], ...], Field(min_length=1), FailFast()]
FOLDERS = Allowed('a list of folder paths, each of them a list of names, such as [["Inbox", "Invoices"]]')
TIMESTAMP = Allowed('a time in ISO 8601, such as "2020-01-01T00:00:00+00:00"')


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class BucketKeys(_Keys):
    """`bucket` of a mailbox."""

    owner: Name = Field(description="Project of the bucket in which the mailbox should be synced.")
    name: Name = Field(description="Name of the bucket in which the mailbox should be synced.")


class MailboxKeys(_Keys):
    """What stands behind a mailbox's address."""

    bucket: Annotated[BucketKeys, Allowed('an object with "owner" and "name"')] = Field(
        description="The bucket in which the mailbox should be synced."
    )
    start_from: Annotated[StartFrom, Allowed('"bucket" or "config"')] = Field(
        default=StartFrom.BUCKET,
        description='Whether to start from last synced time ("bucket") or ignore last synced time and always start '
        'from start_timestamp ("config"). Should be set to "bucket" for normal operation, but "config" can be useful '
        "in some cases when debugging.",
    )
    start_timestamp: Annotated[datetime | None, BeforeValidator(timestamp), TIMESTAMP] = Field(
        default=None,
        description="Timestamp from which to start syncing email. If not set, all emails will be synced. "
        "A time without an offset is in UTC.",
    )
    folder_allowlist: Annotated[tuple[FolderPath, ...], FailFast(), FOLDERS] = Field(
        default=(),
        description="Only these folders are synced, with everything below them. If empty or not set: all.",
    )
    folder_denylist: Annotated[tuple[FolderPath, ...], FailFast(), FOLDERS] = Field(
        default=(), description="These folders, with everything below them, are not synced."
    )


class ConfigKeys(Layered):
    """The config's top level, from the environment and the file. All are optional: what is needed depends on others."""

    ews_endpoint: Text | None = Field(
        default=None,
        description="Whole address of Exchange Web Services, such as "
        "https://outlook.office365.com/EWS/Exchange.asmx. Instead of host and port.",
    )
    host: Text | None = Field(
        default=None,
        description="Exchange server host, with or without http:// or https://. Without, it is https when port is "
        "443, else http.",
    )
    port: Annotated[Whole, Ge(1), Le(65535)] = Field(default=80, description="Exchange server port.")
    auth_type: Annotated[
        Literal["ntlm", "oauth2", "basic", "kerberos"] | None, Allowed('"ntlm", "oauth2", "basic" or "kerberos"')
    ] = Field(default=None, description="How to log in to the Exchange server. Required.")
    auth_user: Text | None = Field(default=None, description="Exchange server user.")
    auth_password: Secret | None = Field(default=None, description="Exchange server password.")
    auth_oauth_authority: Text | None = Field(
        default=None,
        description="OAuth 2 authority, such as https://login.microsoftonline.com/ followed by the tenant's id.",
    )
    auth_oauth_client_id: Text | None = Field(default=None, description="OAuth 2 client (application) id.")
    auth_oauth_client_secret: Secret | None = Field(
        default=None, description="OAuth 2 client secret. Either this or a client certificate."
    )
    auth_oauth_client_credential_private_key: Secret | None = Field(
        default=None,
        description="Private key of the OAuth 2 client certificate: PEM without a passphrase, or a path to it.",
    )
    auth_oauth_client_credential_thumbprint: Text | None = Field(
        default=None, description="SHA-1 thumbprint of the OAuth 2 client certificate: 40 hexadecimal digits."
    )
    auth_oauth_client_credential_certificate: Text | None = Field(
        default=None,
        description="The OAuth 2 client certificate itself, instead of its thumbprint: PEM, or a path to it.",
    )
    access_type: Annotated[Literal["delegate", "impersonation"], Allowed('"delegate" or "impersonation"')] = Field(
        default="delegate", description='Access type: "delegate" or "impersonation".'
    )
    ews_ssl_verify: Annotated[bool, BeforeValidator(_yes_or_no), Choice] = Field(
        default=True, description='If set to "false", will not verify certificates.'
    )
    ews_ssl_ca_bundle: Text | None = Field(
        default=None, description="Path of a PEM file with certificate authorities to trust besides the system's."
    )
    ews_ssl_ciphers: Text | None = Field(
        default=None,
        description="Make EWS appliance use specific ciphers. The ciphers should be a string in the OpenSSL cipher "
        "list format.",
    )
    poll_frequency: Annotated[Number, Ge(0)] = Field(
        default=15, description="How long to wait between batches, in seconds."
    )
    poll_message_sleep: Annotated[Number, Ge(0)] = Field(
        default=0.1, description="How long to wait between individual emails in a batch, in seconds."
    )
    max_concurrent_uploads: Annotated[Whole, Ge(0), Le(32)] = Field(
        default=8, description="Number of concurrent uploads to Communications Mining, between 0 and 32."
    )
    emails_per_folder: Annotated[Whole, Ge(1), Le(100_000)] = Field(
        default=2520,
        description="Max number of emails to fetch from each folder per batch, between 1 and 100,000. This setting "
        "allows the appliance to make progress on all folders evenly in case there is a very large folder.",
    )
    reinfer_batch_size: Annotated[Whole, Ge(1), Le(1000)] = Field(
        default=80, description="How many emails to fetch per batch, between 1 and 1000."
    )
    mailboxes: Annotated[dict[str, MailboxKeys], Allowed("an object whose keys are the mailboxes' addresses")] = Field(
        default_factory=dict, description="List of mailboxes to fetch."
    )
    audit_email: Text | None = Field(
        default=None,
        description="If you have configured the appliance with a remote config, Communications Mining will send an "
        "email to this address whenever the config is updated.",
    )


SECRETS = frozenset(name for name, field in ConfigKeys.model_fields.items() if "SecretStr" in str(field.annotation))
"""The keys whose values are never shown."""


def read_keys(tree: Tree) -> ConfigKeys:
    """Give the keys, without those that are wrong, for which a problem is added to `tree`.

    Raises:
        ConfigurationError: there are more problems than anybody wants to read.
    """
    # Each mailbox by itself: what pydantic notes of each mistake takes much more room than the config has.
    mailboxes = tree.values.get("mailboxes")
    top = tree.values if not isinstance(mailboxes, dict) else tree.values | {"mailboxes": {}}
    try:
        ConfigKeys.from_layers(environment=tree.environment(), config_file=top)
    except ValidationError as error:
        _report(error, (), tree)
    if isinstance(mailboxes, dict):
        _check_mailboxes(mailboxes, tree)
    if tree.problems.enough:
        tree.problems.raise_if_any()
    return ConfigKeys.from_layers(environment=tree.healthy(tree.environment()), config_file=tree.healthy(tree.values))


def _check_mailboxes(mailboxes: Mapping[str, Any], tree: Tree) -> None:
    for address, entry in mailboxes.items():
        try:
            MailboxKeys.model_validate(entry)
        except ValidationError as error:
            if tree.problems.enough:
                tree.problems.more(error.error_count())
            else:
                _report(error, ("mailboxes", address), tree)


def _report(error: ValidationError, above: KeyPath, tree: Tree) -> None:
    for detail in error.errors(include_url=False, include_context=False):
        path: KeyPath = (*above, *detail["loc"])
        tree.complain(path, "wrong" if tree.problems.enough else _sentence(detail, path))


def _sentence(detail: ErrorDetails, path: KeyPath) -> str:
    if detail["type"] == "extra_forbidden":
        return _unknown(path)
    field = _field(path)
    allowed = allowed_text(field) if field else "an object"
    if detail["type"] == "missing":
        return f"missing: it must be {allowed}"
    if path[0] in SECRETS:
        return f"must be {allowed} (what was given is not shown)"
    return not_allowed(allowed, detail["input"])


def _level(path: KeyPath) -> tuple[type[BaseModel], int]:
    """Give the model that describes the object in which `path` ends, and the depth at which its keys stand."""
    if path[0] != "mailboxes" or len(path) <= 2:
        return ConfigKeys, 0
    if path[2] == "bucket" and len(path) > 3:
        return BucketKeys, 3
    return MailboxKeys, 2


def _field(path: KeyPath) -> FieldInfo | None:
    if path[0] == "mailboxes" and len(path) == 2:
        return None
    model, depth = _level(path)
    return model.model_fields.get(str(path[depth]))


def _unknown(path: KeyPath) -> str:
    model, _ = _level(path)
    key = str(path[-1])
    first, _, rest = key.partition(".")
    if model is MailboxKeys and first == "bucket" and rest in BucketKeys.model_fields:
        return f'unknown key: write it as "bucket": {{"{rest}": …}}'
    if model is not ConfigKeys and key in ConfigKeys.model_fields:
        return "unknown key here: it belongs to the top level of the file"
    if model is not MailboxKeys and key in MailboxKeys.model_fields:
        return "unknown key here: it belongs to a mailbox"
    if model is MailboxKeys and key in BucketKeys.model_fields:
        return 'unknown key here: it belongs into "bucket"'
    return f"unknown key{did_you_mean(key, model.model_fields)}"


def allowed_text(field: FieldInfo) -> str:
    """Say what a field takes, in words that fit behind "must be"."""
    low: object = None
    high: int | None = None
    # The outermost description wins: it stands last.
    for part in reversed([*_metadata_of(field.annotation), *field.metadata]):
        if isinstance(part, Allowed):
            return part.text
        low = part.ge if isinstance(part, Ge) else low
        high = part.le if isinstance(part, Le) and isinstance(part.le, int) else high
    kind = "a whole number" if field.annotation is int else "a number"
    if high is not None:
        # As the documentation writes them: 1000, but 100,000.
        return f"{kind} between {low} and {high if high < 100_000 else format(high, ',')}"
    return f"{kind}, {low} or more"


def _metadata_of(annotation: object) -> list[object]:
    """Give the notes on the members of an optional type."""
    return [note for member in getattr(annotation, "__args__", ()) for note in getattr(member, "__metadata__", ())]
