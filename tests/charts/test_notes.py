"""What Helm prints after an installation: what to do next, with commands that fit the values."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.charts.programs import CHART, NAMESPACE, RELEASE, VALUES, needs, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs("helm")

_AS_AN_OBJECT = (
    'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata: {text: {{ include "notes" . | toJson }}}\n'
)


def notes(name: str, directory: Path) -> str:
    """Give the notes for `values/NAME.yaml`. Helm prints them only with a cluster, so a copy has them as an object."""
    chart = directory / "chart"
    shutil.copytree(CHART, chart)
    text = (chart / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    (chart / "templates" / "_notes.tpl").write_text(
        f'{{{{- define "notes" -}}}}{text}{{{{- end -}}}}', encoding="utf-8"
    )
    (chart / "templates" / "notes.yaml").write_text(_AS_AN_OBJECT, encoding="utf-8")
    file = next(file for file in VALUES if file.stem == name)
    shown = ("--show-only", "templates/notes.yaml", "--kube-version", "1.34.0")
    result = run("helm", "template", RELEASE, chart, "--namespace", NAMESPACE, "--values", file, *shown)
    assert result.returncode == 0, result.stdout
    told: str = yaml.safe_load(result.stdout)["data"]["text"]
    return told


CASES = {
    "documented": (
        "1 instance of ews-sync syncing into https://mydomain.reinfer.io/api/.",
        "create secret generic reinfer-credentials \\\n      --from-literal=reinfer-api-token=... \\\n",
        "      --from-literal=ews-auth-pass=...\n",
        "The ConfigMap ews-config has to be there, with the config under the key example_ews_config.",
        "kubectl -n mail port-forward pod/appliance-ews-sync-0 8000:8000",
        "helm test appliance -n mail --logs",
    ),
    "local-files": (
        "3 instances of ews-sync writing files.",
        "fetched again from their start_timestamp",
        "first set replicaCount=0",
    ),
    "existing-claim": ("/var/lib/ews-sync/config/insurance/live.json",),
    "oauth2-certificate": (
        "create secret generic my-secret",
        "--from-file=tls.key=FILE \\\n      --from-file=tls.crt=FILE\n",
    ),
    "everything-else": ("port-forward pod/a-name-that-is-much-longer-than-what-a-pod-can-be-ca-0 8000:9000",),
    "stopped": ("No instance runs now (replicaCount is 0), and no mail is fetched.",),
}


@pytest.mark.parametrize("name", CASES)
def test_what_to_do_next(name: str, tmp_path: Path) -> None:
    told = notes(name, tmp_path)
    for words in CASES[name]:
        assert words in told
    assert "\n\n\n" not in told
    assert "of-the-test" not in told


def test_a_secret_that_the_chart_makes_is_not_asked_for(tmp_path: Path) -> None:
    assert "create secret" not in notes("oauth2-secret", tmp_path)
