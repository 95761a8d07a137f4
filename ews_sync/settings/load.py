"""The way in: command line, environment and config to `Settings`, or every problem at once.

Of several places that say the same thing, the command line wins, then the environment, then the config, then the
default: `layers.py` says so. The options are known first, by themselves: what shows how the service is doing has to
run before a config on the platform can be fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from ews_sync.model import Bucket, Mailbox
from ews_sync.settings import options as named
from ews_sync.settings.addresses import email_address
from ews_sync.settings.config_file import (
    Tree,
    read_bytes,
    read_file,
    report_placeholders,
    report_repeated,
    without_nulls,
)
from ews_sync.settings.environment import Given, check_proxies, read_overrides, read_secret
from ews_sync.settings.exchange import Exchange, exchange_from
from ews_sync.settings.keys import ConfigKeys, read_keys
from ews_sync.settings.option_keys import OptionKeys, read_options, shard_number
from ews_sync.settings.problems import Problems, did_you_mean, not_allowed, placeholder_in, placeholder_left, shown
from ews_sync.settings.values import ConfigFile, ConfigPlace, Pace, RemoteConfig, RunOptions, Settings, Shard


def load_options(arguments: Mapping[str, str], environ: Mapping[str, str]) -> RunOptions:
    """Check what was typed and what the environment says. `arguments` are texts, by `Option.name`.

    A config on this machine is not read, but where there are problems, its problems are told along with them.

    Raises:
        ConfigurationError: with all problems there are, one line each.
    """
    problems = Problems()
    check_proxies(environ, problems)
    options, given = _options(arguments, environ, problems)
    place = _config_place(options, given, environ, problems)
    if not isinstance(place, ConfigFile):
        # What overrides the config need not wait for it.
        read_overrides(_unreadable(problems), environ, problems)
    elif problems:
        _checked(read_file(place.path, str(place), problems), environ, problems)
    problems.raise_if_any()
    return replace(options, config_place=place)


def read_config(options: RunOptions, environ: Mapping[str, str], remote: bytes | None = None) -> Settings:
    """Read and check the config, a local one or what was fetched as the `remote` one. Secrets in files are read anew.

    Raises:
        ConfigurationError: with all problems there are, one line each.
        ValueError: the config is not on this machine, and was not handed over.
    """
    problems, place = Problems(), options.config_place
    if remote is not None:
        tree = read_bytes(remote, options.config_source, problems)
    elif isinstance(place, ConfigFile):
        tree = read_file(place.path, str(place), problems)
    else:
        raise ValueError(f"{options.config_source} has to be fetched first")
    return _settings(options, tree, environ, problems)


def settings_from(
    config: Mapping[str, Any],
    arguments: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Make `Settings` of a config that is already there, for the demo and for tests. All else is as for a real one.

    Raises:
        ConfigurationError: with all problems there are, one line each.
    """
    problems = Problems()
    environ = environ or {}
    options, _ = _options(arguments or {}, environ, problems)
    return _settings(options, Tree(dict(config), options.config_source, problems), environ, problems)


# --- Options ---------------------------------------------------------------------------------------------------------


_GivenOptions = Mapping[named.Option, Given]
"""The options that were given, be it right or wrong."""


def _options(
    arguments: Mapping[str, str], environ: Mapping[str, str], problems: Problems
) -> tuple[RunOptions, _GivenOptions]:
    keys, given = read_options(OptionKeys, named.OPTIONS, arguments, environ, problems)
    token = _token(given, environ, problems)
    _check_destination(given, problems)
    _check_dead_letters(given, problems)
    _go_together(given, problems, named.REMOTE_CONFIG_OWNER, named.REMOTE_CONFIG_KEY)
    _go_together(given, problems, named.SHARD_NAME, named.TOTAL_SHARDS)
    options = RunOptions(
        bind=keys.bind,
        reinfer_api_endpoint=keys.reinfer_api_endpoint,
        api_token=token,
        local_files_prefix=keys.local_files_prefix,
        local_files_format=keys.local_files_format,
        dead_letter_dir=keys.dead_letter_dir,
        remote_config_owner=keys.remote_config_owner,
        remote_config_key=keys.remote_config_key,
        debug_level=keys.debug_level,
        shard=_shard(keys, given, problems),
        restart_on_unrecoverable_errors=keys.restart_on_unrecoverable_errors,
    )
    return options, given


def _check_destination(given: _GivenOptions, problems: Problems) -> None:
    prefix, endpoint = given.get(named.LOCAL_FILES_PREFIX), given.get(named.REINFER_API_ENDPOINT)
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


def _check_dead_letters(given: _GivenOptions, problems: Problems) -> None:
    directory, prefix = given.get(named.DEAD_LETTER_DIR), given.get(named.LOCAL_FILES_PREFIX)
    if directory and prefix:
        problems.add(
            directory.label,
            f"cannot be given together with {prefix.label}: there the dead letters lie beside the mail; leave it out",
        )


def _token(given: _GivenOptions, environ: Mapping[str, str], problems: Problems) -> SecretStr | None:
    variable = named.API_TOKEN
    prefix, endpoint = given.get(named.LOCAL_FILES_PREFIX), given.get(named.REINFER_API_ENDPOINT)
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


def _go_together(given: _GivenOptions, problems: Problems, *pair: named.Option) -> None:
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
            given[named.SHARD_NAME].label,
            f"must end with a number from 0 to {total - 1}, since there are {total} shards, not {shown(name)}",
        )
        return None
    return Shard(name, number, total)


# --- The config ------------------------------------------------------------------------------------------------------


def _config_place(
    options: RunOptions, given: _GivenOptions, environ: Mapping[str, str], problems: Problems
) -> ConfigPlace | None:
    """Say where the config is. A file of one's own wins over a remote one."""
    variable = named.CONFIG_PATH.name
    owner, key, prefix = options.remote_config_owner, options.remote_config_key, options.local_files_prefix
    remote = RemoteConfig(owner, key) if owner and key else None
    if path := environ.get(variable, "").strip():
        if left := placeholder_in(path):
            problems.add(variable, placeholder_left(left))
            return None
        return ConfigFile(Path(path), instead_of=remote if prefix is None else None)
    if named.REMOTE_CONFIG_OWNER not in given and named.REMOTE_CONFIG_KEY not in given:
        where = "DIRECTORY/config/PROJECT/NAME.json" if named.LOCAL_FILES_PREFIX in given else "one on the platform"
        how = f"or give {named.REMOTE_CONFIG_OWNER.text} and {named.REMOTE_CONFIG_KEY.text} for {where}"
        problems.add(variable, f"missing: set it to the path of the config file, {how}")
        return None
    if remote is None or named.LOCAL_FILES_PREFIX not in given:
        return remote
    return ConfigFile(prefix / "config" / remote.owner / f"{remote.key}.json") if prefix else None


def _unreadable(problems: Problems) -> Tree:
    return Tree({}, "config", problems, bad={()})


def _settings(options: RunOptions, tree: Tree, environ: Mapping[str, str], problems: Problems) -> Settings:
    config, exchange = _checked(tree, environ, problems)
    return Settings(
        **{field.name: getattr(options, field.name) for field in fields(RunOptions)},
        exchange=exchange,
        mailboxes=_mailboxes(config),
        pace=Pace(
            config.poll_frequency,
            config.poll_message_sleep,
            config.max_concurrent_uploads,
            config.emails_per_folder,
            config.reinfer_batch_size,
        ),
        audit_email=config.audit_email,
    )


def _checked(tree: Tree, environ: Mapping[str, str], problems: Problems) -> tuple[ConfigKeys, Exchange]:
    """Give what the config says. Raises what was found to be wrong, here and before."""
    read_overrides(tree, environ, problems)
    report_placeholders(tree)
    report_repeated(tree)
    tree.values = without_nulls(tree.values)
    _check_addresses(tree)
    if problems.enough:
        # More of them would only fill the memory.
        problems.raise_if_any()
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
    return config, exchange


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
