"""The way in: command line, environment and config file to `Settings`, or every problem at once.

Of several places that say the same thing, the command line wins, then the environment, then the config file, then the
default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from ews_sync.errors import UnavailableError
from ews_sync.model import Bucket, Mailbox
from ews_sync.settings import options
from ews_sync.settings.addresses import checked_url, email_address, host_and_port, path_name
from ews_sync.settings.config_file import Tree, read_tree, report_placeholders, report_repeated, without_nulls
from ews_sync.settings.directories import why_not_writable
from ews_sync.settings.environment import Choices, one_of, read_secret, whole_number
from ews_sync.settings.exchange import exchange_from
from ews_sync.settings.keys import ConfigKeys, check_shape
from ews_sync.settings.problems import Problems, did_you_mean, not_allowed, placeholder_in, placeholder_left, shown
from ews_sync.settings.values import Bind, LocalFilesFormat, Pace, Settings, Shard

if TYPE_CHECKING:
    from collections.abc import Mapping

_NO_REMOTE_CONFIG = "a remote config is not in this version yet"


def load_settings(arguments: Mapping[str, str], environ: Mapping[str, str]) -> Settings:
    """Load and check everything. `arguments` are the options that were typed, by `Option.name`, as text.

    Raises:
        ConfigurationError: with all problems there are, one line each.
        UnavailableError: all is well, but the config would have to come from the platform.
    """
    problems = Problems()
    choices = Choices(options.OPTIONS, arguments, environ, problems)
    general = _general(choices, environ, problems)
    tree = _config(choices, general, environ, problems)
    return _assemble(general, tree, environ, problems)


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
    choices = Choices(options.OPTIONS, arguments or {}, environ, problems)
    general = _general(choices, environ, problems)
    return _assemble(general, Tree(dict(config), "the given config", problems), environ, problems)


# --- Options ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _General:
    """What does not come from the config file."""

    bind: Bind
    endpoint: str | None
    token: SecretStr | None
    prefix: Path | None
    local_files_format: LocalFilesFormat
    owner: str | None
    key: str | None
    debug_level: int
    shard: Shard | None
    restart: bool


def parsed_bind(choices: Choices) -> Bind:
    """Give the address to listen at, or the default."""
    return choices.parsed(options.BIND, lambda text: Bind(*host_and_port(text))) or Bind()


def parsed_debug_level(choices: Choices) -> int:
    """Give the debug level, or the default."""
    level = choices.parsed(options.DEBUG_LEVEL, whole_number("0, 1 or 2", 0, 2))
    return 1 if level is None else level


def parsed_format(choices: Choices) -> LocalFilesFormat:
    """Give the format of local files, or the default."""
    return LocalFilesFormat(choices.parsed(options.LOCAL_FILES_FORMAT, one_of(*LocalFilesFormat)) or "eml")


def _general(choices: Choices, environ: Mapping[str, str], problems: Problems) -> _General:
    token = _token(choices, environ, problems)
    _check_destination(choices, problems)
    owner = choices.parsed(options.REMOTE_CONFIG_OWNER, path_name)
    key = choices.parsed(options.REMOTE_CONFIG_KEY, path_name)
    _go_together(choices, problems, options.REMOTE_CONFIG_OWNER, options.REMOTE_CONFIG_KEY)
    restart = choices.parsed(options.RESTART, one_of("true", "false"))
    return _General(
        bind=parsed_bind(choices),
        endpoint=choices.parsed(options.REINFER_API_ENDPOINT, _api_endpoint),
        token=token,
        prefix=choices.parsed(options.LOCAL_FILES_PREFIX, _writable),
        local_files_format=parsed_format(choices),
        owner=owner,
        key=key,
        debug_level=parsed_debug_level(choices),
        shard=_shard(choices, problems),
        restart=restart == "true",
    )


def _check_destination(choices: Choices, problems: Problems) -> None:
    prefix, endpoint = choices.get(options.LOCAL_FILES_PREFIX), choices.get(options.REINFER_API_ENDPOINT)
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


def _token(choices: Choices, environ: Mapping[str, str], problems: Problems) -> SecretStr | None:
    variable = options.API_TOKEN
    prefix, endpoint = choices.get(options.LOCAL_FILES_PREFIX), choices.get(options.REINFER_API_ENDPOINT)
    if prefix and not endpoint:
        for name in (variable.name, variable.file):
            if environ.get(name):
                problems.add(name, f"cannot be given together with {prefix.label}: local files need no token; unset it")
        return None
    given, well = read_secret(variable, environ, problems)
    if given is None:
        if endpoint and not prefix and well:
            empty = " (it is set, but empty)" if variable.name in environ else ""
            problems.add(variable.name, f"missing{empty}, and {endpoint.label} needs it: set it, or {variable.file}")
        return None
    if not given.text.isascii() or not given.text.isprintable() or " " in given.text:
        problems.add(given.label, "must be a token, without spaces or line breaks (what was given is not shown)")
        return None
    return SecretStr(given.text)


def _api_endpoint(text: str) -> str:
    checked_url(text, 'an address such as "https://mydomain.reinfer.io/api/"')
    return text.rstrip("/") + "/"


def _writable(text: str) -> Path:
    path = Path(text)
    if obstacle := why_not_writable(path):
        raise ValueError(obstacle)
    return path


def _go_together(choices: Choices, problems: Problems, *pair: options.Option) -> bool:
    """Tell whether both options of a pair were given; one alone is a problem."""
    first, second = (choices.get(option) for option in pair)
    if bool(first) == bool(second):
        return bool(first)
    missing, given = (pair[1], first) if first else (pair[0], second)
    problems.add(missing.text, f"missing: {given.label if given else ''} needs it (or set {missing.variable})")
    return False


def _shard(choices: Choices, problems: Problems) -> Shard | None:
    both = _go_together(choices, problems, options.SHARD_NAME, options.TOTAL_SHARDS)
    number = choices.parsed(options.SHARD_NAME, _shard_number)
    total = choices.parsed(options.TOTAL_SHARDS, whole_number("a whole number, 1 or more", 1, 10**6))
    name = choices.get(options.SHARD_NAME)
    if not both or number is None or total is None or name is None:
        return None
    if number >= total:
        problems.add(
            name.label,
            f"must end with a number from 0 to {total - 1}, since there are {total} shards, not {shown(name.text)}",
        )
        return None
    return Shard(name.text, number, total)


def _shard_number(text: str) -> int:
    if text.startswith("$"):
        raise ValueError(f"must be a name such as ews-2, not {shown(text)}: the variable was not filled in")
    digits = re.search(r"[0-9]+\Z", text)
    if digits is None or len(digits.group()) > 18:
        raise ValueError(f"must end with the shard's number, such as ews-2, not {shown(text)}")
    return int(digits.group())


# --- The config ------------------------------------------------------------------------------------------------------


def _config(choices: Choices, general: _General, environ: Mapping[str, str], problems: Problems) -> Tree:
    """Find the config and read it. A file of one's own wins over a remote one."""
    variable = options.CONFIG_PATH.name
    if path := environ.get(variable, "").strip():
        if left := placeholder_in(path):
            problems.add(variable, placeholder_left(left))
            return _unreadable(problems)
        return read_tree(Path(path), f"config file {_name_of(path)}", problems)
    named = bool(choices.get(options.REMOTE_CONFIG_OWNER) or choices.get(options.REMOTE_CONFIG_KEY))
    if choices.get(options.LOCAL_FILES_PREFIX):
        if general.prefix and general.owner and general.key:
            file = general.prefix / "config" / general.owner / f"{general.key}.json"
            return read_tree(file, f"config file {_name_of(str(file))}", problems)
        how = ", or give --remote-config-owner and --remote-config-key for DIRECTORY/config/PROJECT/NAME.json"
    else:
        if named and choices.get(options.REINFER_API_ENDPOINT):
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


def _assemble(general: _General, tree: Tree, environ: Mapping[str, str], problems: Problems) -> Settings:
    _override(tree, environ, problems)
    report_placeholders(tree)
    report_repeated(tree)
    tree.values = without_nulls(tree.values)
    _check_addresses(tree)
    check_shape(tree.values, tree)
    config = ConfigKeys.model_validate(tree.healthy())
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
        bind=general.bind,
        reinfer_api_endpoint=general.endpoint,
        api_token=general.token,
        local_files_prefix=general.prefix,
        local_files_format=general.local_files_format,
        remote_config_owner=general.owner,
        remote_config_key=general.key,
        debug_level=general.debug_level,
        shard=general.shard,
        restart_on_unrecoverable_errors=general.restart,
        audit_email=config.audit_email,
    )


def _override(tree: Tree, environ: Mapping[str, str], problems: Problems) -> None:
    """Let the environment's variables replace the file's values, and thereby mend what is wrong with them."""
    for variable in options.OVERRIDES:
        if variable.secret:
            given, well = read_secret(variable, environ, problems)
            if not well:
                tree.values.pop(variable.key, None)
                tree.bad.add((variable.key,))
            elif given:
                tree.override(variable.key, given.text, given.label)
        elif text := environ.get(variable.name, "").strip():
            tree.override(variable.key, text, variable.name)
            if variable.key == "port" and "://" in text:
                tree.complain(
                    ("port",),
                    f"must be a whole number, not {shown(text)}: Kubernetes sets this for a Service named reinfer-ews; "
                    "rename the Service, set enableServiceLinks: false in the pod, or set the variable yourself",
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
