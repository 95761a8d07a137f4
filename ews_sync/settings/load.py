"""The way in: command line, environment and config file to `Settings`, or every problem at once.

Of several places that say the same thing, the command line wins, then the environment, then the config file, then the
default: `layers.py` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from ews_sync.errors import UnavailableError
from ews_sync.model import Bucket, Mailbox
from ews_sync.settings import options
from ews_sync.settings.addresses import email_address
from ews_sync.settings.config_file import Tree, read_tree, report_placeholders, report_repeated, without_nulls
from ews_sync.settings.environment import Given, read_overrides, read_secret
from ews_sync.settings.exchange import exchange_from
from ews_sync.settings.keys import ConfigKeys, read_keys
from ews_sync.settings.option_keys import OptionKeys, read_options, shard_number
from ews_sync.settings.problems import Problems, did_you_mean, not_allowed, placeholder_in, placeholder_left, shown
from ews_sync.settings.values import Pace, Settings, Shard

_NO_REMOTE_CONFIG = "a remote config is not in this version yet"


def load_settings(arguments: Mapping[str, str], environ: Mapping[str, str]) -> Settings:
    """Load and check everything. `arguments` are the options that were typed, by `Option.name`, as text.

    Raises:
        ConfigurationError: with all problems there are, one line each.
        UnavailableError: all is well, but the config would have to come from the platform.
    """
    problems = Problems()
    chosen = _options(arguments, environ, problems)
    tree = _config(chosen.keys, chosen.given, environ, problems)
    return _assemble(chosen, tree, environ, problems)


def settings_from(
    config: Mapping[str, Any],
    arguments: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Make `Settings` of a config that is already there, for the demo and for tests. Like `load_settings` otherwise.

    Raises:
        ConfigurationError: with all problems there are, one line each.
    """
    problems = Problems()
    environ = environ or {}
    chosen = _options(arguments or {}, environ, problems)
    return _assemble(chosen, Tree(dict(config), "the given config", problems), environ, problems)


# --- Options ---------------------------------------------------------------------------------------------------------


_GivenOptions = Mapping[options.Option, Given]
"""The options that were given, be it right or wrong."""


@dataclass(frozen=True, slots=True)
class _Options:
    """The options' values, and what follows from them."""

    keys: OptionKeys
    given: _GivenOptions
    token: SecretStr | None
    shard: Shard | None


def _options(arguments: Mapping[str, str], environ: Mapping[str, str], problems: Problems) -> _Options:
    keys, given = read_options(OptionKeys, options.OPTIONS, arguments, environ, problems)
    token = _token(given, environ, problems)
    _check_destination(given, problems)
    _go_together(given, problems, options.REMOTE_CONFIG_OWNER, options.REMOTE_CONFIG_KEY)
    _go_together(given, problems, options.SHARD_NAME, options.TOTAL_SHARDS)
    return _Options(keys, given, token, _shard(keys, given, problems))


def _check_destination(given: _GivenOptions, problems: Problems) -> None:
    prefix, endpoint = given.get(options.LOCAL_FILES_PREFIX), given.get(options.REINFER_API_ENDPOINT)
    if prefix and endpoint:
        problems.add(
            f"{prefix.label} and {endpoint.label}",
            "cannot be given together: the first writes files, the second syncs into the platform; choose one",
        )
    elif not prefix and not endpoint:
        problems.add(
            "--reinfer-api-endpoint or --local-files-prefix",
            "missing: give the first to sync into the platform, or the second to write files",
        )


def _token(given: _GivenOptions, environ: Mapping[str, str], problems: Problems) -> SecretStr | None:
    variable = options.API_TOKEN
    prefix, endpoint = given.get(options.LOCAL_FILES_PREFIX), given.get(options.REINFER_API_ENDPOINT)
    if prefix and not endpoint:
        for name in (variable.name, variable.file):
            if environ.get(name):
                problems.add(name, f"cannot be given together with {prefix.label}: local files need no token; unset it")
        return None
    token, well = read_secret(variable, environ, problems)
    if token is None:
        if endpoint and not prefix and well:
            empty = " (it is set, but empty)" if variable.name in environ else ""
            problems.add(variable.name, f"missing{empty}, and {endpoint.label} needs it: set it, or {variable.file}")
        return None
    if not token.text.isascii() or not token.text.isprintable() or " " in token.text:
        problems.add(token.label, "must be a token, without spaces or line breaks (what was given is not shown)")
        return None
    return SecretStr(token.text)


def _go_together(given: _GivenOptions, problems: Problems, *pair: options.Option) -> None:
    """Refuse one option of a pair without the other."""
    for needed, other in (pair, reversed(pair)):
        if other in given and needed not in given:
            problems.add(needed.text, f"missing: {given[other].label} needs it (or set {needed.variable})")


def _shard(keys: OptionKeys, given: _GivenOptions, problems: Problems) -> Shard | None:
    name, total = keys.shard_name, keys.total_shards
    if name is None or total is None:
        return None
    number = shard_number(name)
    if number >= total:
        problems.add(
            given[options.SHARD_NAME].label,
            f"must end with a number from 0 to {total - 1}, since there are {total} shards, not {shown(name)}",
        )
        return None
    return Shard(name, number, total)


# --- The config ------------------------------------------------------------------------------------------------------


def _config(keys: OptionKeys, given: _GivenOptions, environ: Mapping[str, str], problems: Problems) -> Tree:
    """Find the config and read it. A file of one's own wins over a remote one."""
    variable = options.CONFIG_PATH.name
    if path := environ.get(variable, "").strip():
        if left := placeholder_in(path):
            problems.add(variable, placeholder_left(left))
            return _unreadable(problems)
        return read_tree(Path(path), f"config file {_name_of(path)}", problems)
    named = options.REMOTE_CONFIG_OWNER in given or options.REMOTE_CONFIG_KEY in given
    if options.LOCAL_FILES_PREFIX in given:
        if keys.local_files_prefix and keys.remote_config_owner and keys.remote_config_key:
            file = keys.local_files_prefix / "config" / keys.remote_config_owner / f"{keys.remote_config_key}.json"
            return read_tree(file, f"config file {_name_of(str(file))}", problems)
        how = ", or give --remote-config-owner and --remote-config-key for DIRECTORY/config/PROJECT/NAME.json"
    else:
        if named and options.REINFER_API_ENDPOINT in given:
            problems.raise_if_any()
            raise UnavailableError(_NO_REMOTE_CONFIG, hint=f"set {variable} to the path of a config file")
        how = ""
    if not named:
        problems.add(variable, f"missing: set it to the path of the config file{how}")
    return _unreadable(problems)


def _name_of(path: str) -> str:
    return shown(path, longest=1000)[1:-1]


def _unreadable(problems: Problems) -> Tree:
    return Tree({}, "config", problems, bad={()})


def _assemble(chosen: _Options, tree: Tree, environ: Mapping[str, str], problems: Problems) -> Settings:
    read_overrides(tree, environ, problems)
    report_placeholders(tree)
    report_repeated(tree)
    tree.values = without_nulls(tree.values)
    _check_addresses(tree)
    config = read_keys(tree)
    exchange = exchange_from(config, tree)
    if config.audit_email is not None:
        try:
            email_address(config.audit_email)
        except ValueError as error:
            tree.complain(("audit_email",), f"{error}, not {shown(config.audit_email)}")
    problems.raise_if_any()
    if exchange is None:
        # Whatever keeps it from being built has been filed as a problem.
        raise AssertionError("no Exchange server, and no problem")
    keys = chosen.keys
    return Settings(
        exchange=exchange,
        mailboxes=_mailboxes(config),
        config_source=tree.source,
        pace=Pace(
            config.poll_frequency,
            config.poll_message_sleep,
            config.max_concurrent_uploads,
            config.emails_per_folder,
            config.reinfer_batch_size,
        ),
        bind=keys.bind,
        reinfer_api_endpoint=keys.reinfer_api_endpoint,
        api_token=chosen.token,
        local_files_prefix=keys.local_files_prefix,
        local_files_format=keys.local_files_format,
        remote_config_owner=keys.remote_config_owner,
        remote_config_key=keys.remote_config_key,
        debug_level=keys.debug_level,
        shard=chosen.shard,
        restart_on_unrecoverable_errors=keys.restart_on_unrecoverable_errors,
        audit_email=config.audit_email,
    )


def _check_addresses(tree: Tree) -> None:
    mailboxes = tree.values.get("mailboxes")
    if mailboxes is None:
        if not tree.is_bad("mailboxes"):
            tree.complain(("mailboxes",), f"missing: list the mailboxes to fetch{_meant(tree, 'mailboxes')}")
        return
    if not isinstance(mailboxes, dict):
        return
    if not mailboxes:
        tree.complain(("mailboxes",), "must have at least one mailbox, and it is empty")
    seen: dict[str, str] = {}
    for address, entry in mailboxes.items():
        path = ("mailboxes", address)
        try:
            email_address(address)
        except ValueError as error:
            tree.complain(path, str(error))
            continue
        other = seen.setdefault(address.casefold(), address)
        if other != address:
            tree.complain(path, f"is the same mailbox as {shown(other)}, but for capital letters: keep one")
        elif not isinstance(entry, dict):
            tree.complain(path, not_allowed('an object with "bucket"', entry))


def _meant(tree: Tree, key: str) -> str:
    return next((f" (is {shown(given)} meant?)" for given in tree.values if did_you_mean(given, [key])), "")


def _mailboxes(config: ConfigKeys) -> tuple[Mailbox, ...]:
    return tuple(
        Mailbox(
            address=address,
            bucket=Bucket(keys.bucket.owner, keys.bucket.name),
            start_from=keys.start_from,
            start_timestamp=keys.start_timestamp,
            folder_allowlist=keys.folder_allowlist,
            folder_denylist=keys.folder_denylist,
        )
        for address, keys in config.mailboxes.items()
    )
