"""Values that cannot work are refused with what to do; values.yaml, its schema and the README say the same."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import ews_sync
from tests.charts.programs import CHART, needs, template
from tests.charts.test_instances import CONFIG_MAP, INLINE, PLATFORM

if TYPE_CHECKING:
    from collections.abc import Iterator

CERTIFICATE = "login: {type: oauth2-certificate}\ncredentials: {withCertificate: false}\n"
CREATED = "credentials: {create: true, values: {apiToken: t}}\n"
REFUSED = {
    "no destination": (CONFIG_MAP, "platform.endpoint is missing: set it to https://<mydomain>.reinfer.io/api/"),
    "two destinations": (PLATFORM + "localFiles: {enabled: true}\n" + CONFIG_MAP, "choose one"),
    "a placeholder": (
        'platform: {endpoint: "https://<mydomain>.reinfer.io/api/"}\n' + CONFIG_MAP,
        "put your own domain in the place of <mydomain>",
    ),
    "no address": (
        "platform: {endpoint: mydomain}\n" + CONFIG_MAP,
        'platform.endpoint must be an address such as https://mydomain.reinfer.io/api/, not "mydomain"',
    ),
    "no config": (PLATFORM, "the config is missing: give config (the JSON file's keys), existingConfigMap.name, or"),
    "two configs": (INLINE + CONFIG_MAP, "config and existingConfigMap.name cannot be given together"),
    "three configs": (
        INLINE + CONFIG_MAP + "remoteConfig: {owner: o, key: k}\n",
        "config and existingConfigMap.name and remoteConfig cannot be given together",
    ),
    "half a remote config": (PLATFORM + "remoteConfig: {owner: o}\n", "remoteConfig needs both"),
    "a password in the config": (
        INLINE.replace("auth_user: svc", "auth_user: svc, auth_password: hunter2"),
        "config.auth_password would lie in a ConfigMap, open to whoever may read those: remove it, put it into the",
    ),
    "no mailboxes": (PLATFORM + "config: {host: h, port: 443}\n", "config.mailboxes is missing"),
    "another login": (
        INLINE.replace("ntlm", "oauth2"),
        'login.type "password" does not fit config.auth_type "oauth2": set login.type to oauth2-secret or',
    ),
    "no certificate": (INLINE.replace("ntlm", "oauth2") + CERTIFICATE, "the certificate is missing: set"),
    "half a secret": (INLINE + CREATED, "credentials.values.password is missing, and credentials.create needs it"),
    "unused secrets": (INLINE + "credentials: {values: {password: p}}\n", "set credentials.create to true, or remove"),
    "no secret": (INLINE + "credentials: {secretName: ''}\n", "credentials.secretName is missing: name the Secret"),
    "a shared volume": (
        "replicaCount: 2\nlocalFiles: {enabled: true}\npersistence: {existingClaim: mail}\n" + CONFIG_MAP,
        "cannot be shared by 2 instances, each needs a volume of its own: leave it empty, or set replicaCount to 1",
    ),
    "an idle volume": (INLINE + "persistence: {existingClaim: mail}\n", "persistence.existingClaim has no use"),
    "dead letters twice": (
        "localFiles: {enabled: true}\ndeadLetters: {enabled: true}\n" + CONFIG_MAP,
        "there the dead letters lie beside the mail; leave it out",
    ),
    "authorities twice": (
        INLINE + 'caBundle: {existingConfigMap: c, pem: "-----BEGIN CERTIFICATE-----"}\n',
        "caBundle.pem and caBundle.existingConfigMap cannot be given together",
    ),
    "a proxy's password": (
        INLINE + 'proxy: {https: "http://me:hunter2@proxy:3128"}\n',
        "put it into a Secret with the key HTTPS_PROXY, and name that in proxy.existingSecret",
    ),
    "no proxy": (INLINE + "proxy: {http: proxy:3128}\n", "proxy.http must be an address such as"),
    "proxies twice": (
        INLINE + 'proxy: {existingSecret: s, http: "http://p"}\n',
        "proxy.existingSecret cannot be given",
    ),
    "hostPath": (
        INLINE + "extraVolumes: [{name: v, hostPath: {path: /data}}]\n",
        'extraVolumes: "v" is a hostPath, which the restricted Pod Security Standard refuses',
    ),
    "a closed port": (
        INLINE.replace("port: 443", "port: 8443") + "networkPolicy: {enabled: true}\n",
        "networkPolicy.egress.exchange.ports does not have 8443",
    ),
    "no time to stop": (
        INLINE + "terminationGracePeriodSeconds: 10\n",
        "terminationGracePeriodSeconds 10 is too short",
    ),
    "no drain": (INLINE + "podDisruptionBudget: {enabled: true, maxUnavailable: 0}\n", "set it to 1"),
    "no such alert": (
        INLINE + "prometheusRule: {enabled: true, disabled: [Nonsense]}\n",
        'prometheusRule.disabled: there is no alert "Nonsense"; there are EwsSyncAbsent, ',
    ),
    "a typing error": (INLINE + "repicaCount: 2\n", "additional properties 'repicaCount' not allowed"),
    "one below": (INLINE + "image: {tagg: v1}\n", "at '/image': additional properties 'tagg' not allowed"),
    "too few": (INLINE + "replicaCount: -1\n", "at '/replicaCount': minimum: got -1, want 0"),
    "no number": (INLINE + "replicaCount: many\n", "at '/replicaCount': got string, want integer"),
    "no such format": (INLINE + "localFiles: {format: mbox}\n", "at '/localFiles/format': value must be one of"),
    "no amount": (INLINE + "resources: {limits: {memory: lots}}\n", "at '/resources/limits/memory'"),
    "no authority": (INLINE + "caBundle: {pem: nonsense}\n", "at '/caBundle/pem'"),
}
"""Values, and words of the message that refuses them."""


@needs("helm")
@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED)
def test_values_that_cannot_work_are_refused(values: str, message: str) -> None:
    result = template(values=values)
    assert result.returncode != 0
    assert message in result.stdout
    assert "hunter2" not in result.stdout


@needs("helm")
def test_all_that_is_wrong_is_told_at_once() -> None:
    told = template().stdout
    assert "platform.endpoint is missing" in told
    assert "the config is missing" in told


def leaves(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Give each value that can be set, by its whole name; an empty object is a value."""
    for key, value in values.items():
        if isinstance(value, dict) and value and key not in {"podSecurityContext", "securityContext"}:
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def defaults() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return values


def test_the_readme_has_every_value_with_its_default() -> None:
    text = (CHART / "README.md").read_text(encoding="utf-8").partition("## Values")[2]
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]*)` \| (.+) \|$", text, re.MULTILINE)
    assert {name: yaml.safe_load(default) for name, default, _ in rows} == dict(leaves(defaults()))
    assert len(rows) == len({name for name, _, _ in rows})


def schema_of(schema: dict[str, Any], path: list[str], whole: dict[str, Any]) -> dict[str, Any] | None:
    """Follow a path of keys into the schema; None where nothing is said about it."""
    while "$ref" in schema:
        schema = whole["definitions"][schema["$ref"].rpartition("/")[2]]
    if not path:
        return schema
    below = schema.get("properties", {}).get(path[0]) or schema.get("additionalProperties")
    return schema_of(below, path[1:], whole) if isinstance(below, dict) else None


def test_the_schema_has_every_value_and_nothing_else() -> None:
    whole = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    for name, _ in leaves(defaults()):
        assert schema_of(whole, name.split("."), whole) is not None, name
    # Probes may have more than they have by default; "global" is Helm's own.
    assert whole["properties"].keys() - {"global"} == defaults().keys()


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Give each object with properties that is in a schema."""
    if isinstance(schema, dict):
        if "properties" in schema and isinstance(schema["properties"], dict) and schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from objects(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from objects(value)


def test_the_schema_lets_no_unknown_value_pass() -> None:
    whole = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    # Variables are Kubernetes' own, and only their names are looked at.
    open_ones = [each for each in objects(whole) if each.get("additionalProperties") is not False]
    assert [list(each["properties"]) for each in open_ones] == [["name"]]


def test_the_chart_is_of_the_version_that_it_runs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == ews_sync.__version__
