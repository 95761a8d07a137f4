"""The commands, variables and values in the handbook are ones that there are."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import validate

from ews_sync import cli
from ews_sync.settings.options import OPTIONS, VARIABLES
from tests.docs.pages import PAGES, ROOT, fenced

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

TEXTS = [ROOT / "README.md", *PAGES]
SHELL_ONLY = {"REINFER_TOKEN"}
"""Variables of the reader's own shell, as the platform's documentation calls them."""


def commands() -> Iterator[tuple[str, list[str]]]:
    """Give what is typed behind `reinfer-ews`, in each console block of each page."""
    for page in TEXTS:
        for block in fenced(page, "console"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if "reinfer-ews" in words:
                    last = len(words) - words[::-1].index("reinfer-ews")
                    yield page.name, words[last:]


def test_commands_are_ones_that_there_are() -> None:
    found = list(commands())
    assert len(found) > 10
    for page, words in found:
        command, _, _, _ = cli._parsed(words)
        assert command in {None, *cli._COMMANDS}, (page, words)


def test_variables_are_ones_that_there_are() -> None:
    known = {variable.name for variable in VARIABLES} | {variable.file for variable in VARIABLES if variable.secret}
    known |= {option.variable for option in OPTIONS} | SHELL_ONLY
    for page in TEXTS:
        named = set(re.findall(r"\bREINFER_[A-Z_]*[A-Z]\b", page.read_text(encoding="utf-8")))
        assert named - known == set(), page.name


@pytest.fixture
def yaml() -> ModuleType:
    module: ModuleType = pytest.importorskip("yaml", reason="the handbook's tools are missing (extra docs)")
    return module


def yaml_blocks() -> list[Any]:
    return [pytest.param(page, text, id=page.name) for page in PAGES for text in fenced(page, "yaml")]


@pytest.mark.parametrize(("page", "text"), yaml_blocks())
def test_yaml_is_yaml(yaml: ModuleType, page: Path, text: str) -> None:
    value = yaml.safe_load(text)
    assert isinstance(value, dict), page.name


def test_the_stateful_set_runs_the_command_with_options_that_there_are(yaml: ModuleType) -> None:
    [text] = [text for text in fenced(ROOT / "docs/kubernetes.md", "yaml") if "kind: StatefulSet" in text]
    spec = yaml.safe_load(text)["spec"]
    [container] = spec["template"]["spec"]["containers"]
    command, _, given, _ = cli._parsed(container["args"][1:])
    assert (command, given["total_shards"]) == (None, str(spec["replicas"]))


def test_the_values_of_the_chart_are_ones_that_it_takes(yaml: ModuleType) -> None:
    [text] = [text for text in fenced(ROOT / "docs/kubernetes.md", "yaml") if text.startswith("image:")]
    chart = ROOT / "charts/ews-sync"
    defaults = yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8"))
    values = yaml.safe_load(text)
    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    validate(merged(defaults, values), schema)


def merged(defaults: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Put values over defaults as Helm does."""
    both = defaults | values
    return {
        key: merged(defaults[key], value) if isinstance(value, dict) and isinstance(defaults.get(key), dict) else value
        for key, value in both.items()
    }


def test_the_schema_takes_no_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config-schema", "--bind", "x"]) == 2
    assert "--bind is an option of" in capsys.readouterr().err
