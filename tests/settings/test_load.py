from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from ews_sync.errors import ConfigurationError
from ews_sync.settings.demo import DemoOptions, demo_options
from ews_sync.settings.describe import describe
from ews_sync.settings.exchange import BasicAuth
from ews_sync.settings.load import load_options, read_config, settings_from
from ews_sync.settings.values import Bind, ConfigFile, LocalFilesFormat, RemoteConfig, Settings, Shard
from tests.settings.examples import PASSWORD, PLATFORM, TOKEN, basic, load, problems

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LEFT = "still has the placeholder <mydomain>: put your own value there"


def write(path: Path, text: str | bytes | dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(text, dict):
        text = json.dumps(text)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def loaded(arguments: dict[str, str], environ: dict[str, str], remote: bytes | None = None) -> Settings:
    return read_config(load_options(arguments, environ), environ, remote)


def refused(arguments: dict[str, str], environ: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        loaded(arguments, environ)
    return list(caught.value.problems)


# --- Options ---------------------------------------------------------------------------------------------------------


def test_defaults() -> None:
    settings = load(basic())
    assert (settings.bind, settings.debug_level) == (Bind("127.0.0.1", 8000), 1)
    assert settings.local_files_format is LocalFilesFormat.EML
    assert (settings.shard, settings.restart_on_unrecoverable_errors) == (None, False)
    assert (settings.remote_config_owner, settings.remote_config_key) == (None, None)
    assert (settings.reinfer_api_endpoint, settings.local_files_prefix) == (PLATFORM["reinfer_api_endpoint"], None)


OPTIONS = {
    "bind": ("REINFER_EWS_BIND", "0.0.0.0:1", "[::1]:2", Bind("0.0.0.0", 1), Bind("::1", 2)),  # noqa: S104 - a test
    "reinfer_api_endpoint": ("REINFER_API_ENDPOINT", "http://a.b/c", "http://d.e", "http://a.b/c/", "http://d.e/"),
    "local_files_format": ("REINFER_EWS_LOCAL_FILES_FORMAT", "jsonl", "eml", "jsonl", "eml"),
    "debug_level": ("REINFER_EWS_DEBUG_LEVEL", "0", "2", 0, 2),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_command_line_wins_over_the_environment(name: str) -> None:
    variable, low, high, low_value, high_value = OPTIONS[name]
    base = {} if name == "reinfer_api_endpoint" else dict(PLATFORM)
    environ = TOKEN | {variable: low}
    assert getattr(settings_from(basic(), base, environ), name) == low_value
    assert getattr(settings_from(basic(), base | {name: high}, environ), name) == high_value
    assert getattr(settings_from(basic(), base | {name: high}, TOKEN | {variable: "<x>"}), name) == high_value


def test_names_from_the_environment() -> None:
    environ = {
        "REINFER_EWS_REMOTE_CONFIG_OWNER": "o",
        "REINFER_EWS_REMOTE_CONFIG_KEY": "k",
        "REINFER_EWS_SHARD_NAME": "ews-1",
        "REINFER_EWS_TOTAL_SHARDS": "2",
        "REINFER_EWS_RESTART_ON_UNRECOVERABLE_ERRORS": "true",
    }
    settings = load(basic(), environ)
    assert (settings.remote_config_owner, settings.remote_config_key) == ("o", "k")
    assert settings.shard == Shard("ews-1", 1, 2)
    assert settings.restart_on_unrecoverable_errors


OVERRIDES: dict[str, tuple[str, str, Callable[[Any], object], str]] = {
    "REINFER_EWS_HOST": ("host", "x.y", lambda found: found.exchange.endpoint, "http://x.y/EWS/Exchange.asmx"),
    "REINFER_EWS_PORT": (
        "port",
        "81",
        lambda found: found.exchange.endpoint,
        "http://mail.example.com:81/EWS/Exchange.asmx",
    ),
    "REINFER_EWS_AUTH_USER": ("auth_user", "me", lambda found: found.exchange.auth.user, "me"),
    "REINFER_EWS_AUTH_PASS": (
        "auth_password",
        "pw",
        lambda found: found.exchange.auth.password.get_secret_value(),
        "pw",
    ),
    "REINFER_EWS_ACCESS_TYPE": (
        "access_type",
        "impersonation",
        lambda found: found.exchange.access_type,
        "impersonation",
    ),
}


@pytest.mark.parametrize("variable", OVERRIDES)
@pytest.mark.parametrize("in_file", ["right", "wrong", "missing"])
def test_the_environment_wins_over_the_file_and_mends_it(variable: str, in_file: str) -> None:
    key, text, get, expected = OVERRIDES[variable]
    config = basic(key)
    if in_file != "missing":
        config[key] = 443 if in_file == "right" and key == "port" else ("delegate" if in_file == "right" else ["<x>"])
    assert get(load(config, {variable: text})) == expected


def test_a_problem_is_named_after_where_the_value_came_from() -> None:
    environ = {
        "REINFER_EWS_BIND": "8000",
        "REINFER_EWS_PORT": "tcp://10.0.0.1:80",
        "REINFER_EWS_ACCESS_TYPE": "owner",
        "REINFER_EWS_AUTH_USER": "<user>",
    }
    assert problems(basic(), environ, {"debug_level": "3"}) == [
        'REINFER_EWS_BIND: must be HOST:PORT, such as "0.0.0.0:8000" or "[::1]:8000", not "8000"',
        '--debug-level: must be 0, 1 or 2, not "3"',
        (
            'REINFER_EWS_PORT: must be a whole number, not "tcp://10.0.0.1:80": Kubernetes sets this for a Service '
            "named reinfer-ews; rename the Service, set enableServiceLinks: false in the pod, or set the variable "
            "yourself"
        ),
        "REINFER_EWS_AUTH_USER: still has the placeholder <user>: put your own value there",
        'REINFER_EWS_ACCESS_TYPE: must be "delegate" or "impersonation", not "owner"',
    ]


BIND = 'must be HOST:PORT, such as "0.0.0.0:8000" or "[::1]:8000", not'
NAME = 'must be a plain name without "/" or "\\", and not "." or "..", not'


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"bind": ""}, "--bind: must not be empty: give a value, or leave the option out"),
        ({"bind": "a.b"}, f'--bind: {BIND} "a.b"'),
        ({"bind": "a.b:65536"}, f'--bind: {BIND} "a.b:65536"'),
        ({"bind": "::1:80"}, f'--bind: {BIND} "::1:80"'),
        ({"bind": ":80"}, f'--bind: {BIND} ":80"'),
        ({"debug_level": "-1"}, '--debug-level: must be 0, 1 or 2, not "-1"'),
        ({"local_files_format": "mbox"}, '--local-files-format: must be "eml" or "jsonl", not "mbox"'),
        ({"shard_name": "ews-0"}, "--total-shards: missing: --shard-name needs it (or set REINFER_EWS_TOTAL_SHARDS)"),
        ({"total_shards": "1"}, "--shard-name: missing: --total-shards needs it (or set REINFER_EWS_SHARD_NAME)"),
        (
            {"shard_name": "ews", "total_shards": "1"},
            '--shard-name: must end with the shard\'s number, such as ews-2, not "ews"',
        ),
        (
            {"shard_name": "$(POD_NAME)", "total_shards": "1"},
            '--shard-name: must be a name such as ews-2, not "$(POD_NAME)": the variable was not filled in',
        ),
        (
            {"shard_name": "ews-5", "total_shards": "5"},
            '--shard-name: must end with a number from 0 to 4, since there are 5 shards, not "ews-5"',
        ),
        (
            {"shard_name": "ews-5", "total_shards": "0"},
            '--total-shards: must be a whole number, 1 or more, not "0"',
        ),
        (
            {"remote_config_owner": "o"},
            "--remote-config-key: missing: --remote-config-owner needs it (or set REINFER_EWS_REMOTE_CONFIG_KEY)",
        ),
        ({"remote_config_owner": "..", "remote_config_key": "k"}, f'--remote-config-owner: {NAME} ".."'),
        ({"remote_config_owner": "o", "remote_config_key": "../k"}, f'--remote-config-key: {NAME} "../k"'),
        ({"remote_config_owner": "o", "remote_config_key": "a\\b"}, f'--remote-config-key: {NAME} "a\\\\b"'),
        ({"remote_config_owner": "o", "remote_config_key": "a\0b"}, f'--remote-config-key: {NAME} "a\\u0000b"'),
        ({"reinfer_api_endpoint": "https://<mydomain>.reinfer.io/api/"}, f"--reinfer-api-endpoint: {LEFT}"),
        (
            {"reinfer_api_endpoint": "mydomain.reinfer.io"},
            (
                '--reinfer-api-endpoint: must be an address such as "https://mydomain.reinfer.io/api/", '
                'not "mydomain.reinfer.io"'
            ),
        ),
    ],
)
def test_wrong_options(arguments: dict[str, str], line: str) -> None:
    assert problems(basic(), {}, arguments) == [line]


def test_a_shard() -> None:
    assert load(basic(), {}, {"shard_name": "ews-4", "total_shards": "5"}).shard == Shard("ews-4", 4, 5)


@pytest.mark.parametrize(
    ("arguments", "environ", "lines"),
    [
        (
            {},
            {},
            [
                (
                    "--reinfer-api-endpoint or --local-files-prefix: missing: give the first to sync into the "
                    "platform, or the second to write files"
                )
            ],
        ),
        (
            PLATFORM,
            {"REINFER_EWS_LOCAL_FILES_PREFIX": "."},
            [
                (
                    "REINFER_EWS_LOCAL_FILES_PREFIX and --reinfer-api-endpoint: cannot be given together: the first "
                    "writes files, the second syncs into the platform; choose one"
                )
            ],
        ),
        (
            {"local_files_prefix": "."},
            TOKEN,
            [
                (
                    "REINFER_API_TOKEN: cannot be given together with --local-files-prefix: local files need no token; "
                    "unset it"
                )
            ],
        ),
        (
            PLATFORM,
            {},
            ["REINFER_API_TOKEN: missing, and --reinfer-api-endpoint needs it: set it, or REINFER_API_TOKEN_FILE"],
        ),
        (
            PLATFORM,
            {"REINFER_API_TOKEN": ""},
            [
                (
                    "REINFER_API_TOKEN: missing (it is set, but empty), and --reinfer-api-endpoint needs it: set it, "
                    "or REINFER_API_TOKEN_FILE"
                )
            ],
        ),
        (
            PLATFORM,
            {"REINFER_API_TOKEN": "a\nb"},
            ["REINFER_API_TOKEN: must be a token, without spaces or line breaks (what was given is not shown)"],
        ),
        (
            PLATFORM,
            {"REINFER_API_TOKEN": "<REINFER_TOKEN>"},
            ["REINFER_API_TOKEN: still has the placeholder <REINFER_TOKEN>: put your own value there"],
        ),
    ],
)
def test_where_the_mail_goes(arguments: dict[str, str], environ: dict[str, str], lines: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings_from(basic(), arguments, environ)
    assert list(caught.value.problems) == lines


def test_an_empty_token_does_not_count_with_local_files(tmp_path: Path) -> None:
    settings = settings_from(basic(), {"local_files_prefix": str(tmp_path)}, {"REINFER_API_TOKEN": ""})
    assert (settings.local_files_prefix, settings.api_token) == (tmp_path, None)


# --- Secrets ---------------------------------------------------------------------------------------------------------


def test_a_secret_from_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "secret", f"{PASSWORD}\n")
    settings = settings_from(
        basic("auth_password"),
        PLATFORM,
        {"REINFER_API_TOKEN_FILE": str(path), "REINFER_EWS_AUTH_PASS_FILE": str(path)},
    )
    assert settings.api_token is not None
    assert settings.api_token.get_secret_value() == PASSWORD
    assert isinstance(settings.exchange.auth, BasicAuth)
    assert settings.exchange.auth.password.get_secret_value() == PASSWORD


def test_wrong_files_of_secrets(tmp_path: Path) -> None:
    environ = {
        "REINFER_API_TOKEN": "x",
        "REINFER_API_TOKEN_FILE": "y",
        "REINFER_EWS_AUTH_PASS_FILE": str(tmp_path / "none"),
        "REINFER_EWS_AUTH_OAUTH_CLIENT_SECRET_FILE": str(write(tmp_path / "empty", "\n")),
        "REINFER_EWS_AUTH_OAUTH_CLIENT_CREDENTIAL_PRIVATE_KEY_FILE": str(write(tmp_path / "binary", b"\xff")),
    }
    with pytest.raises(ConfigurationError) as caught:
        settings_from(basic("auth_password"), PLATFORM, environ)
    key = "REINFER_EWS_AUTH_OAUTH_CLIENT_CREDENTIAL_PRIVATE_KEY_FILE"
    assert list(caught.value.problems) == [
        "REINFER_API_TOKEN: cannot be given together with REINFER_API_TOKEN_FILE: unset one of the two",
        f'REINFER_EWS_AUTH_PASS_FILE: cannot be read: no such file or directory: "{tmp_path}/none"',
        (
            f"REINFER_EWS_AUTH_OAUTH_CLIENT_SECRET_FILE: must be the path of a file with the secret: "
            f'"{tmp_path}/empty" is empty'
        ),
        f'{key}: must be the path of a text file in UTF-8: "{tmp_path}/binary" is none',
    ]


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=6).filter(lambda text: text.strip()))
def test_no_problem_shows_a_secret(secret: str) -> None:
    secret = f"q7{secret}7q"
    config = basic(auth_password=[secret], auth_oauth_client_secret=secret, auth_type="oauth2", poll_frequency=-1)
    config["auth_oauth_client_credential_private_key"] = secret
    text = "\n".join(problems(config))
    assert secret not in text
    assert json.dumps(secret)[1:-1] not in text


# --- The config file -------------------------------------------------------------------------------------------------


def test_a_config_file(tmp_path: Path) -> None:
    for name, text in {"a": json.dumps(basic()), "bom": "\ufeff" + json.dumps(basic())}.items():
        path = write(tmp_path / name, text)
        settings = loaded(PLATFORM, TOKEN | {"REINFER_EWS_CONFIG": str(path)})
        assert settings.config_source == f"config file {path}"
        assert not settings.config_is_remote
        assert settings.mailboxes == load(basic()).mailboxes


def test_a_config_under_the_prefix_and_one_of_ones_own(tmp_path: Path) -> None:
    path = write(tmp_path / "config" / "o w" / "k.json", basic())
    arguments = {
        "local_files_prefix": str(tmp_path),
        "remote_config_owner": "o w",
        "remote_config_key": "k",
    }
    settings = loaded(arguments, {})
    assert settings.config_source == f"config file {path}"
    assert (settings.remote_config_owner, settings.remote_config_key) == ("o w", "k")
    own = write(tmp_path / "own", basic(host="own"))
    settings = loaded(arguments, {"REINFER_EWS_CONFIG": str(own)})
    assert settings.config_source == f"config file {own}"
    path.unlink()
    assert refused(arguments, {}) == [f"config file {path}: cannot be read: no such file or directory"]


def test_no_config(tmp_path: Path) -> None:
    assert refused(PLATFORM, TOKEN) == [
        (
            "REINFER_EWS_CONFIG: missing: set it to the path of the config file, or give --remote-config-owner and "
            "--remote-config-key for one on the platform"
        )
    ]
    assert refused({"local_files_prefix": str(tmp_path)}, {}) == [
        (
            "REINFER_EWS_CONFIG: missing: set it to the path of the config file, or give --remote-config-owner and "
            "--remote-config-key for DIRECTORY/config/PROJECT/NAME.json"
        )
    ]


REMOTE = PLATFORM | {"remote_config_owner": "bank", "remote_config_key": "ews"}


def test_a_remote_config_is_fetched_once_the_options_are_known() -> None:
    options = load_options(REMOTE | {"bind": "127.0.0.1:9"}, TOKEN)
    assert options.config_is_remote
    assert (options.config_place, options.bind) == (RemoteConfig("bank", "ews"), Bind("127.0.0.1", 9))
    assert options.api_token is not None
    environ = TOKEN | {"REINFER_EWS_HOST": "from.environment", "REINFER_EWS_AUTH_PASS": "pw"}
    settings = read_config(options, environ, json.dumps(basic("auth_password")).encode())
    assert settings.config_source == "remote config bank/ews"
    assert settings.exchange.endpoint == "http://from.environment/EWS/Exchange.asmx"
    assert isinstance(settings.exchange.auth, BasicAuth)
    assert settings.exchange.auth.password.get_secret_value() == "pw"
    assert (settings.bind, settings.api_token) == (options.bind, options.api_token)
    with pytest.raises(ValueError, match="remote config bank/ews has to be fetched first"):
        read_config(options, environ)


def test_a_secret_in_a_file_is_read_anew_with_each_config(tmp_path: Path) -> None:
    environ = TOKEN | {"REINFER_EWS_AUTH_PASS_FILE": str(write(tmp_path / "secret", "old"))}
    options = load_options(REMOTE, environ)
    config = json.dumps(basic("auth_password")).encode()
    before = read_config(options, environ, config)
    write(tmp_path / "secret", "new")
    after = read_config(options, environ, config)
    assert isinstance(before.exchange.auth, BasicAuth)
    assert isinstance(after.exchange.auth, BasicAuth)
    assert before != after
    assert after.exchange.auth.password.get_secret_value() == "new"


def test_a_local_config_wins_over_a_remote_one(tmp_path: Path) -> None:
    path = write(tmp_path / "config", basic())
    options = load_options(REMOTE, TOKEN | {"REINFER_EWS_CONFIG": str(path)})
    assert options.config_place == ConfigFile(path, instead_of=RemoteConfig("bank", "ews"))
    assert options.config_source == f"config file {path}"


def test_what_the_environment_says_to_a_remote_config_is_checked_before_that_is_fetched() -> None:
    environ = {"REINFER_API_TOKEN": "x", "REINFER_EWS_PORT": "tcp://10.0.0.1:80", "REINFER_EWS_AUTH_USER": "<user>"}
    lines = refused(REMOTE | {"bind": "x"}, environ)
    assert [line.partition(":")[0] for line in lines] == ["--bind", "REINFER_EWS_PORT", "REINFER_EWS_AUTH_USER"]


def test_the_problems_of_a_local_config_are_told_with_those_of_the_options(tmp_path: Path) -> None:
    path = write(tmp_path / "config", basic(poll_frequency=-1))
    lines = refused(PLATFORM | {"bind": "x"}, TOKEN | {"REINFER_EWS_CONFIG": str(path)})
    assert [line.partition(":")[0] for line in lines] == ["--bind", "poll_frequency"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "remote config bank/ews: the file is empty: it must hold a JSON object"),
        (b"[1]", 'remote config bank/ews: must hold a JSON object, {"mailboxes": …}, not a list'),
        (b"<html>", "remote config bank/ews: line 1, column 1: expected a value"),
        (b'{"a": "\xff"}', "remote config bank/ews: line 1: not UTF-8"),
        (b"[" * 100_000, "remote config bank/ews: not a config: nested too deeply"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "remote config bank/ews: not a config: nested too deeply, or with a number"),
        (b" " * (2 * 1024 * 1024 + 1), "remote config bank/ews: is larger than 2 MiB"),
        (b'{"a": [' + b"[]," * 300_000 + b"[]]}", "remote config bank/ews: holds more than 250,000 values"),
        (b'{"host": "a", "host": "b"}', "host: is there 2 times: keep one (in remote config bank/ews)"),
        (
            b'{"mailboxes": {}}',
            "mailboxes: must have at least one mailbox, and it is empty (in remote config bank/ews)",
        ),
        (b'{"host": "<host>"}', "host: still has the placeholder <host>: put your own value there"),
    ],
)
def test_a_hostile_remote_config_is_refused_like_a_file(data: bytes, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(REMOTE, TOKEN, data)
    assert any(line.startswith(says) for line in caught.value.problems), caught.value.problems


def test_a_file_full_of_problems_does_not_flood_the_log() -> None:
    wrong = {f"m{number}@b.c": {"bucket": {"owner": "o", "name": "n"}, "start": 1} for number in range(900)}
    for mailboxes in (wrong, dict.fromkeys(wrong, 1), {address.upper(): 1 for address in wrong} | wrong):
        lines = problems(basic(mailboxes=mailboxes))
        assert len(lines) == 201
        assert lines[-1].endswith("more of them")


def test_a_file_that_is_none_of_ours_is_told_from_a_config_at_once() -> None:
    keys = b",".join(b'"key%d": 1' % number for number in range(50_000))
    for data in (b"{%s}" % keys, b'{"mailboxes": {"a@b.c": {%s}}}' % keys):
        with pytest.raises(ConfigurationError) as caught:
            loaded(REMOTE, TOKEN, data)
        assert caught.value.problems[0] == (
            "remote config bank/ews: has an object with more than 1,000 keys: that cannot be the config"
        )


def test_thousands_of_mailboxes_are_a_config() -> None:
    entry = {"bucket": {"owner": "o", "name": "n"}}
    config = json.dumps(basic(mailboxes={f"mailbox-{number}@example.com": entry for number in range(5000)})).encode()
    assert len(loaded(REMOTE, TOKEN, config).mailboxes) == 5000


def test_where_dead_letters_go(tmp_path: Path) -> None:
    settings = load(basic(), {"REINFER_EWS_DEAD_LETTER_DIR": str(tmp_path / "dead")})
    assert settings.dead_letter_dir == tmp_path / "dead"
    assert list(tmp_path.iterdir()) == [], "it is tried, and left as it was"
    assert load(basic()).dead_letter_dir is None
    arguments = {"local_files_prefix": str(tmp_path), "dead_letter_dir": str(tmp_path)}
    with pytest.raises(ConfigurationError) as caught:
        settings_from(basic(), arguments)
    assert caught.value.problems == (
        (
            "--dead-letter-dir: cannot be given together with --local-files-prefix: there the dead letters lie beside "
            "the mail; leave it out"
        ),
    )
    (line,) = problems(basic(), {}, {"dead_letter_dir": str(write(tmp_path / "file", ""))})
    assert line.startswith("--dead-letter-dir: cannot be a directory: ")


def test_audit_email_is_kept_and_shown() -> None:
    settings = load(basic(audit_email="ops@example.com"))
    assert settings.audit_email == "ops@example.com"
    assert describe(settings)["audit_email"] == "ops@example.com"
    (line,) = problems(basic(audit_email="nobody"))
    assert line.startswith("audit_email: must be an email address")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the file is empty: it must hold a JSON object"),
        (" \n", "the file is empty: it must hold a JSON object"),
        ("[]", 'must hold a JSON object, {"mailboxes": …}, not a list'),
        ("3", 'must hold a JSON object, {"mailboxes": …}, not a single value'),
        (b'{\n"a": "\xff"}', "line 2: not UTF-8: save the file as UTF-8"),
        (
            '{"a": 1,\n  "b": 2,\n}',
            "line 3, column 1: a comma before a closing } or ] is not allowed: remove the comma",
        ),
        ('{"a": [1,]}', "line 1, column 10: a comma before a closing } or ] is not allowed: remove the comma"),
        ('{"a": 1\n "b": 2}', "line 2, column 2: expected a comma before this, or a closing } or ]"),
        ('{"a" 1}', "line 1, column 6: expected a colon between key and value"),
        ("{a: 1}", 'line 1, column 2: expected a key in double quotes, such as "mailboxes"'),
        (
            "{\"a\": 'b'}",
            "line 1, column 7: expected a value: text in double quotes, a number, true, false, null, { or [",
        ),
        ('{"a": 1', "line 1, column 8: the file ends too early: a closing } or ] or a quote is missing"),
        ('{"a": 1} {', "line 1, column 10: expected the end of the file: the config is one object"),
        ('{"a": 1, // x\n"b": 2}', "line 1, column 10: JSON has no comments: remove this one"),
        ('{"a": "b}', "line 1, column 7: the text that starts here has no closing quote"),
        ('{"a": "DOM\\user"}', "line 1, column 12: a backslash in a text is written twice: \\\\"),
        (
            '{"a": "b\nc"}',
            "line 1, column 9: a text must not go over the end of a line, or hold a tab: write \\n or \\t",
        ),
        ("[" * 100_000, "not a config: nested too deeply, or with a number of thousands of digits"),
        (
            '{"a": ' + "[" * 600 + "]" * 600 + "}",
            "not a config: nested too deeply, or with a number of thousands of digits",
        ),
    ],
)
def test_not_json(tmp_path: Path, text: str | bytes, says: str) -> None:
    path = write(tmp_path / "config", text)
    assert refused(PLATFORM, TOKEN | {"REINFER_EWS_CONFIG": str(path)}) == [f"config file {path}: {says}"]


def test_not_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, says in {
        str(tmp_path): "is a directory: give the path of the config file in it",
        str(tmp_path / "none"): "cannot be read: no such file or directory",
        str(pipe): "is not a regular file",
    }.items():
        assert refused(PLATFORM, TOKEN | {"REINFER_EWS_CONFIG": path}) == [f"config file {path}: {says}"]


def test_keys_that_are_there_twice(tmp_path: Path) -> None:
    entry = '{"bucket": {"owner": "o", "owner": "p", "name": "n"}}'
    text = json.dumps(basic("mailboxes"))[:-1] + f', "host": "x", "mailboxes": {{"a@b.c": {entry}, "a@b.c": {entry}}}}}'
    path = write(tmp_path / "config", text)
    assert refused(PLATFORM, TOKEN | {"REINFER_EWS_CONFIG": str(path)}) == [
        f"host: is there 2 times: keep one (in config file {path})",
        f'mailboxes."a@b.c": is there 2 times: keep one (in config file {path})',
        f'mailboxes."a@b.c".bucket.owner: is there 2 times: keep one (in config file {path})',
    ]


# --- The directory ---------------------------------------------------------------------------------------------------


def test_the_directory_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "new" / "newer"):
        assert settings_from(basic(), {"local_files_prefix": str(path)}).local_files_prefix == path
        assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    file = write(tmp_path / "file", "")
    for path, says in {
        str(file): f'cannot be a directory: "{file}" is a file',
        str(file / "below"): f'cannot be a directory: "{file}" is a file',
        "/proc/none/there": 'cannot be written: no such file or directory: "/proc/none/there"',
        f"{tmp_path}/{'x' * 300}": "cannot be written: file name too long: ",
        "a\0b": "must be a possible path, not ",
    }.items():
        with pytest.raises(ConfigurationError) as caught:
            settings_from(basic(), {"local_files_prefix": path})
        (line,) = caught.value.problems
        assert line.startswith(f"--local-files-prefix: {says}")


@pytest.mark.skipif(os.getuid() == 0, reason="permissions do not hold root back")
def test_a_directory_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(ConfigurationError) as caught:
        settings_from(basic(), {"local_files_prefix": str(tmp_path)})
    assert "no permission" in caught.value.problems[0]


# --- The demo --------------------------------------------------------------------------------------------------------


def test_demo_options(tmp_path: Path) -> None:
    assert demo_options({}, {}) == DemoOptions()
    assert demo_options(
        {
            "mailboxes": "1",
            "emails": "0",
            "directory": str(tmp_path),
            "rate": "0.5",
            "bind": "a.b:1",
            "debug_level": "2",
            "local_files_format": "jsonl",
            "platform": "true",
        },
        {},
    ) == DemoOptions(1, 0, tmp_path, Bind("a.b", 1), 0.5, LocalFilesFormat.JSONL, 2, platform=True)


def test_wrong_demo_options(tmp_path: Path) -> None:
    file = write(tmp_path / "file", "")
    with pytest.raises(ConfigurationError) as caught:
        demo_options({"mailboxes": "0", "emails": "x", "rate": "nan", "directory": str(file)}, {})
    assert caught.value.problems == (
        '--mailboxes: must be a whole number between 1 and 1000, not "0"',
        '--emails: must be a whole number between 0 and 100,000, not "x"',
        f'--directory: cannot be a directory: "{file}" is a file',
        '--rate: must be a number of emails a minute between 0 and 60,000, not "nan"',
    )


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    "value", ["nonsense:://x", "socks5://127.0.0.1:1", "http://", "http://x:port", "http://u:secret@x:99999"]
)
def test_a_proxy_that_cannot_be_one(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_options({"local_files_prefix": "/x"}, {name: value, "REINFER_EWS_CONFIG": "/nowhere"})
    [line] = [line for line in caught.value.problems if line.startswith(name)]
    assert "http://proxy.example.com:3128" in line
    assert "secret" not in line


@pytest.mark.parametrize("value", ["", "http://proxy:3128", "proxy:3128", "https://u:p@proxy.example.com"])
def test_a_proxy_that_can_be_one(value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_options({}, {"HTTPS_PROXY": value})
    assert not any("PROXY" in line for line in caught.value.problems)
