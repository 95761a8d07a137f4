"""What the chart makes, held against the types of Kubernetes and of the Prometheus operator, unknown fields refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from tests.charts.programs import VALUES, Manifest, needs, one, rendered_file, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs("helm")

OPERATORS = "monitoring.coreos.com/v1"
VERSIONS = ("1.28", "1.32", "1.37")


def documents(manifests: list[Manifest]) -> str:
    return yaml.safe_dump_all(manifests, sort_keys=False)


@needs("kubernetes-validate")
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_field(version: str, tmp_path: Path) -> None:
    files = []
    for values in VALUES:
        files.append(tmp_path / f"{values.stem}.yaml")
        own = [each for each in rendered_file(values.stem) if each["apiVersion"] != OPERATORS]
        files[-1].write_text(documents(own), encoding="utf-8")
    result = run("kubernetes-validate", "--strict", "--no-warn", "--kubernetes-version", version, *files)
    assert result.returncode == 0, result.stdout
    for values in VALUES:
        assert f"{values.stem}.yaml passed for resource statefulset/" in result.stdout


@needs("kubernetes-validate")
def test_a_field_that_kubernetes_does_not_know_is_found(tmp_path: Path) -> None:
    manifest = one(rendered_file("documented"), "StatefulSet")
    manifest["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    file = tmp_path / "wrong.yaml"
    file.write_text(documents([manifest]), encoding="utf-8")
    result = run("kubernetes-validate", "--strict", "--no-warn", file)
    assert result.returncode != 0
    assert "livenessProb" in result.stdout


@needs("operator-types")
def test_the_operator_knows_every_field() -> None:
    own = [each for each in rendered_file("observed") if each["apiVersion"] == OPERATORS]
    assert {each["kind"] for each in own} == {"ServiceMonitor", "PrometheusRule"}
    result = run("operator-types", given=documents(own))
    assert (result.returncode, result.stdout) == (0, "2 objects are well\n")


@needs("operator-types")
def test_a_field_that_the_operator_does_not_know_is_found() -> None:
    manifest = one(rendered_file("observed"), "ServiceMonitor")
    manifest["spec"]["endpoints"][0]["scrapeTimeOut"] = "1s"
    result = run("operator-types", given=documents([manifest]))
    assert result.returncode == 1
    assert "scrapeTimeOut" in result.stdout
