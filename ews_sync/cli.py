"""`reinfer-ews`: what was typed becomes settings, and they go to whoever does the work.

Exit codes: 0 all is well; 1 it failed; 2 the command or the configuration is wrong; 130 interrupted. Everything that
takes time to load is loaded when it is needed: `--version`, `--help` and a wrong option answer at once.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import textwrap
from typing import TYPE_CHECKING, NoReturn

from ews_sync import __version__
from ews_sync.errors import ConfigurationError, EwsSyncError
from ews_sync.settings.options import DEMO, DEMO_ONLY, DEMO_SHARED, GROUPS, OPTIONS, VARIABLES, Option
from ews_sync.settings.problems import did_you_mean, plain, shown
from ews_sync.terminal import say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ews_sync.settings.values import Settings

PROGRAM = "reinfer-ews"
_COMMANDS = {
    "run": "keep the mailboxes in step, until stopped (what happens without a command)",
    "check": "try the config, the login, every mailbox and the destination; change nothing",
    "demo": "run against a simulated Exchange server, with nothing to set up",
    "status": "show live what a running one is doing, at http://127.0.0.1:8000 or the URL that follows",
    "config-schema": "print the JSON Schema of the config file, for editors",
}

_STATUS_AT = "127.0.0.1:8000"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code; `argv` without the program's name, by default the process's own."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Kubernetes replaces an image's arguments, not its entry point, and the documented ones begin with the command.
    if arguments[:1] == [PROGRAM]:
        del arguments[0]
    try:
        return _run(arguments, os.environ)
    except ConfigurationError as error:
        _complain(error.problems)
        return 2
    except EwsSyncError as error:
        say(sys.stderr, f"{PROGRAM}: {plain(str(error))}")
        return 1
    except KeyboardInterrupt:
        return 130


class _UsageError(Exception):
    """The command was typed wrongly; its text says how, in one line."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # argparse writes "argument --bind: expected one argument".
        option = message.removeprefix("argument ").partition(":")[0]
        if "expected one argument" in message:
            message = f"{option} needs a value"
        elif "ignored explicit argument" in message:
            message = f"{option} takes no value"
        raise _UsageError(plain(message))


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def _split_lines(self, text: str, width: int) -> list[str]:
        # An option's name is not cut in two at its hyphens.
        return textwrap.wrap(text, width, break_on_hyphens=False)


def _run(arguments: list[str], environ: Mapping[str, str]) -> int:
    try:
        command, target, given, wants = _parsed(arguments)
    except _UsageError as error:
        say(sys.stderr, f"{PROGRAM}: {error}", f"{PROGRAM}: {PROGRAM} --help lists commands and options")
        return 2
    if wants == "version":
        say(sys.stdout, f"{PROGRAM} {__version__}")
        return 0
    if wants == "help":
        say(sys.stdout, _parser(command or "all").format_help().rstrip())
        return 0
    _hear_sigterm(0 if command in {None, "run", "demo"} else 128 + signal.SIGTERM)
    if command == "config-schema":
        return _config_schema()
    if command == "status":
        from ews_sync.live_status import status  # noqa: PLC0415 - loads an HTTP client

        return status(target or environ.get("REINFER_EWS_BIND") or _STATUS_AT)
    return _demo(given, environ) if command == "demo" else _appliance(command or "run", given, environ)


def _hear_sigterm(code: int) -> None:
    """Until the service takes the signal over, end with `code`: nothing has begun yet that could be lost."""
    # As a container's first process one without a handler would not even hear it. At once: an exception in the middle
    # of an import can get lost.
    signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(code))
    # The image's entry point holds it back from the first moment, so that none is lost before there is a handler.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _config_schema() -> int:
    from ews_sync.settings.schema import config_schema  # noqa: PLC0415 - loads pydantic

    say(sys.stdout, json.dumps(config_schema(), indent=2))
    return 0


def _appliance(command: str, given: Mapping[str, str], environ: Mapping[str, str]) -> int:
    if command == "run":
        # To look at the config again is no reason to end, and must not be forgotten either: it waits.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    from ews_sync.settings.load import load_options, read_config  # noqa: PLC0415 - loads pydantic

    options = load_options(given, environ)

    def read(remote: bytes | None) -> Settings:
        return read_config(options, environ, remote)

    # A config on this machine is checked before anything begins.
    start = options if options.config_is_remote else read(None)
    if command == "check":
        from ews_sync.check import check  # noqa: PLC0415 - loads the HTTP client

        return check(start, read)
    from ews_sync.app import run  # noqa: PLC0415 - loads everything

    return run(start, read)


def _demo(given: Mapping[str, str], environ: Mapping[str, str]) -> int:
    from ews_sync.settings.demo import demo_options  # noqa: PLC0415 - loads pydantic

    wanted = demo_options(given, environ)
    from ews_sync.demo import demo  # noqa: PLC0415 - loads everything

    return demo(wanted)


def _complain(problems: Sequence[str]) -> None:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    say(sys.stderr, f"{PROGRAM}: configuration: {count}", *(f"  {problem}" for problem in problems))


# --- What was typed --------------------------------------------------------------------------------------------------


def _parsed(arguments: Sequence[str]) -> tuple[str | None, str | None, dict[str, str], str | None]:
    """Give the command, whom `status` asks, the options' texts, and "version" or "help" when only that is wanted.

    One parser knows every option, so that they can stand before and after the command alike; which of them a command
    takes is checked afterwards.
    """
    parser = _parser("all")
    found, unknown = parser.parse_known_args(arguments)
    words = [word for word in unknown if not word.startswith("-")]
    given = {key: value for key, value in vars(found).items() if key not in {"help", "version"}}
    wants = "help" if found.help else "version" if found.version else None
    # Only an unknown option's name is repeated: what stands behind it may be a secret.
    options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
    if options:
        known = [option.text for option in (*OPTIONS, *DEMO_ONLY)]
        raise _UsageError(f"unknown option {plain(options[0])}{did_you_mean(options[0], known)}")
    command = words[0] if words else None
    if command is not None and command not in _COMMANDS:
        raise _UsageError(f"unknown command {shown(command)}{did_you_mean(command, _COMMANDS)}")
    target = words.pop(1) if command == "status" and len(words) > 1 else None
    if len(words) > 1:
        raise _UsageError(f"one command at a time: {shown(words[1])} is one too many")
    if wants is None:
        _check_options_of(command or "run", given)
    return command, target, given, wants


def _check_options_of(command: str, given: Mapping[str, str]) -> None:
    taken = _options_of(command)
    for option in (*OPTIONS, *DEMO_ONLY):
        if option.name in given and option not in taken:
            whose = f"{PROGRAM} demo" if option in DEMO_ONLY else f"{PROGRAM} and {PROGRAM} check"
            raise _UsageError(f"{option.text} is an option of {whose}, not of {PROGRAM} {command}")


def _options_of(command: str) -> tuple[Option, ...]:
    if command == "demo":
        return (*DEMO_ONLY, *DEMO_SHARED)
    return () if command in {"config-schema", "status"} else OPTIONS


def _parser(command: str) -> _Parser:
    """Make the parser; `command` decides which options its help shows, "all" for every one."""
    parser = _Parser(
        prog=PROGRAM if command in {"all", "run"} else f"{PROGRAM} {command}",
        usage=_usage(command),
        description=_description(command),
        epilog=_epilog() if _options_of(command) == OPTIONS else None,
        formatter_class=_HelpFormatter,
        add_help=False,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    if _options_of(command) == OPTIONS:
        for title, group in GROUPS:
            _add_group(parser, title, group)
    if command in {"all", "demo"}:
        _add_group(parser, DEMO, DEMO_ONLY if command == "all" else (*DEMO_ONLY, *DEMO_SHARED))
    other = parser.add_argument_group("other")
    about = "Show this, for one command or for all."
    other.add_argument("-h", "--help", action="store_true", default=False, help=about)
    other.add_argument("--version", action="store_true", default=False, help="Show the version.")
    return parser


def _usage(command: str) -> str:
    if command == "all":
        return f"{PROGRAM} [COMMAND] [OPTION ...]"
    return f"{PROGRAM} {command} [URL]" if command == "status" else f"{PROGRAM} {command} [OPTION ...]"


def _add_group(parser: _Parser, title: str, group: Sequence[Option]) -> None:
    section = parser.add_argument_group(title)
    for option in group:
        notes = [f"Default: {option.default}."] if option.default else []
        notes += [f"[{option.variable}]"] if option.variable else []
        text = " ".join([option.help, *notes]).replace("%", "%%")
        if option.flag:
            section.add_argument(option.text, dest=option.name, action="store_const", const="true", help=text)
        else:
            section.add_argument(option.text, dest=option.name, metavar=option.metavar, help=text)


def _description(command: str) -> str:
    if command != "all":
        return f"{_COMMANDS[command][0].upper()}{_COMMANDS[command][1:]}."
    lines = [f"  {name:<15}{text}" for name, text in _COMMANDS.items()]
    return "\n".join(
        [
            "Keep the mail of many Exchange mailboxes flowing into Communications Mining buckets, or into files.",
            "",
            "commands:",
            *lines,
            "",
            "Of the same setting, the command line wins, then the environment [in brackets], then the config file.",
            "SIGHUP has the config looked at again; SIGTERM stops in an orderly way.",
        ]
    )


def _epilog() -> str:
    lines = ["environment (an option's own variable stands with the option):"]
    for variable in VARIABLES:
        key = f"; overrides {variable.key}" if variable.key else ""
        lines.append(f"  {variable.name}\n        {variable.help}{key}")
    lines += ["", "A secret can also be in a file, whose path goes into the variable with _FILE appended:"]
    lines += [f"  {variable.file}" for variable in VARIABLES if variable.secret]
    return "\n".join(lines)
