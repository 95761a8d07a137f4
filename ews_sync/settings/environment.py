"""What the environment says: variables that override the config file, and secrets from variables or files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ews_sync.settings.options import OVERRIDES
from ews_sync.settings.problems import placeholder_in, placeholder_left, reason, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ews_sync.settings.config_file import Tree
    from ews_sync.settings.options import Variable
    from ews_sync.settings.problems import Problems

_LARGEST_SECRET = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Given:
    """A text from outside, and what brought it: `--bind` or `REINFER_EWS_BIND`."""

    text: str
    label: str


def check_proxies(environ: Mapping[str, str], problems: Problems) -> None:
    """Look at the proxies that the environment names; what they say is not shown, it may have a password in it."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        for variable in (name, name.lower()):
            text = environ.get(variable, "").strip()
            if text and not _is_proxy(text):
                problems.add(variable, 'must be the address of an HTTP proxy, such as "http://proxy.example.com:3128"')


def _is_proxy(text: str) -> bool:
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def read_overrides(tree: Tree, environ: Mapping[str, str], problems: Problems) -> None:
    """Read the variables that override keys of the config file into `tree.overrides`; empty ones count as unset."""
    for variable in OVERRIDES:
        if variable.secret:
            given, well = read_secret(variable, environ, problems)
            if given:
                tree.overrides[variable.key] = given
            elif not well:
                # The file's value must not step in for one that cannot be read.
                tree.values.pop(variable.key, None)
                tree.mark((variable.key,))
        elif text := environ.get(variable.name, "").strip():
            tree.overrides[variable.key] = Given(text, variable.name)
            if variable.key == "port" and "://" in text:
                tree.complain(
                    ("port",),
                    f"must be a whole number, not {shown(text)}: Kubernetes sets this for a Service named reinfer-ews; "
                    "rename the Service, set enableServiceLinks: false in the pod, or set the variable yourself",
                )
            elif left := placeholder_in(text):
                tree.complain((variable.key,), placeholder_left(left))


def read_secret(variable: Variable, environ: Mapping[str, str], problems: Problems) -> tuple[Given | None, bool]:
    """Give a secret from its variable or the file that `<NAME>_FILE` names; and whether all is well with it.

    An empty variable counts as none. Line ends behind the secret are not part of it: files end with one.
    """
    text, path = environ.get(variable.name, ""), environ.get(variable.file, "")
    if text and path:
        problems.add(variable.name, f"cannot be given together with {variable.file}: unset one of the two")
        return None, False
    if not path:
        text = text.rstrip("\r\n")
        given = Given(text, variable.name) if text else None
    else:
        try:
            with Path(path).open("rb") as file:
                text = file.read(_LARGEST_SECRET).decode("utf-8-sig").rstrip("\r\n")
        except OSError as error:
            problems.add(variable.file, f"cannot be read: {reason(error)}: {shown(path)}")
            return None, False
        except ValueError:
            problems.add(variable.file, f"must be the path of a text file in UTF-8: {shown(path)} is none")
            return None, False
        if not text:
            problems.add(variable.file, f"must be the path of a file with the secret: {shown(path)} is empty")
            return None, False
        given = Given(text, variable.file)
    if given and (left := placeholder_in(given.text, whole=True)):
        problems.add(given.label, placeholder_left(left))
        return None, False
    return given, True
