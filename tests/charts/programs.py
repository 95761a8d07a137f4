"""The chart, and the programs that try it: Helm, promtool, and two that know Kubernetes' and the operator's types.

`.ci/chart` installs them; where one is absent its tests are skipped, and say so.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "charts" / "ews-sync"
ALERTS = CHART / "files" / "alerts.yaml"
DASHBOARD = CHART / "files" / "dashboard.json"
VALUES = sorted(Path(__file__).with_name("values").glob("*.yaml"))
NAMESPACE = "mail"
RELEASE = "appliance"

_PEERS = Path(sys.prefix) / "peers" / "bin"
_KUBERNETES = "1.34.0"

Manifest = dict[str, Any]
"""An object of Kubernetes, as YAML gives it."""


def program(name: str) -> Path | None:
    """Find a program, the one that `.ci/chart` has installed first."""
    found = shutil.which(name, path=_PEERS) or shutil.which(name)
    return Path(found) if found else None


def needs(name: str) -> pytest.MarkDecorator:
    """Skip the tests of what needs a program that is not there."""
    return pytest.mark.skipif(program(name) is None, reason=f"{name} is not installed: .ci/chart installs it")


def run(name: str, *arguments: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; both of its outputs are in `stdout`."""
    path = program(name)
    assert path is not None
    return subprocess.run(  # noqa: S603 - our own words
        [path, *arguments], input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        timeout=120,
    )  # fmt: skip


def template(*arguments: str | Path, values: str | None = None) -> subprocess.CompletedProcess[str]:
    """Render the chart with the options given, and with `values`, a YAML text."""
    options = ("--namespace", NAMESPACE, "--kube-version", _KUBERNETES, *arguments)
    more = ("--values", "-") if values is not None else ()
    return run("helm", "template", RELEASE, CHART, *options, *more, given=values)


def lint(file: Path) -> subprocess.CompletedProcess[str]:
    """Have Helm look for what is wrong with the chart."""
    return run("helm", "lint", "--strict", CHART, "--kube-version", _KUBERNETES, "--values", file)


def rendered(values: str) -> list[Manifest]:
    """Give the objects that the chart makes of values, a YAML text."""
    result = template(values=values)
    assert result.returncode == 0, result.stdout
    return [document for document in yaml.safe_load_all(result.stdout) if document]


@cache
def rendered_text(file: Path) -> str:
    """Render the chart with a file of values."""
    result = template("--values", file)
    assert result.returncode == 0, result.stdout
    return result.stdout


def rendered_file(name: str) -> list[Manifest]:
    """Give the objects that the chart makes of `values/NAME.yaml`."""
    file = next(file for file in VALUES if file.stem == name)
    return [document for document in yaml.safe_load_all(rendered_text(file)) if document]


def one(manifests: list[Manifest], kind: str, ending: str = "") -> Manifest:
    """Give the one object of a kind, whose name has that ending."""
    found = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"].endswith(ending)]
    assert len(found) == 1, f"{len(found)} objects of kind {kind}"
    return found[0]


def pod_of(manifests: list[Manifest]) -> Manifest:
    """Give the spec of the instances' pods."""
    spec: Manifest = one(manifests, "StatefulSet")["spec"]["template"]["spec"]
    return spec


def container_of(manifests: list[Manifest]) -> Manifest:
    """Give the one container of the instances' pods."""
    (container,) = pod_of(manifests)["containers"]
    assert isinstance(container, dict)
    return container


def variables_of(manifests: list[Manifest]) -> dict[str, str]:
    """Give the variables that are plain text."""
    return {each["name"]: each["value"] for each in container_of(manifests)["env"] if "value" in each}


def option(manifests: list[Manifest], name: str) -> str | None:
    """Give the argument that stands behind an option of the command, None where the option is not given."""
    arguments = [str(argument) for argument in container_of(manifests)["args"]]
    return arguments[arguments.index(name) + 1] if name in arguments else None
