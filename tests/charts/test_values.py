"""Values that cannot work are refused with what to do; values.yaml, its schema and the README say the same."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import ews_sync
from tests.charts.programs import CHART, REPOSITORY, needs, rendered, template
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
    "a password in short": (
        INLINE.replace("auth_user: svc", "auth_user: svc, Auth_Pass: hunter2"),
        "config.Auth_Pass would lie in a ConfigMap, open to whoever may read those: remove it, put it into the Secret",
    ),
    "a client's secret in the config": (
        INLINE.replace("auth_user: svc", "auth_oauth_client_secret: hunter2"),
        "put it into the Secret reinfer-credentials under the key ews-oauth-client-secret, and set login.type",
    ),
    "a token of a mailbox": (
        INLINE.replace("{bucket:", "{apiToken: hunter2, bucket:"),
        "remove it, put it into the Secret reinfer-credentials under the key reinfer-api-token\n",
    ),
    "a secret of a mailbox": (
        INLINE.replace("{bucket:", "{mySecret: hunter2, bucket:"),
        "config.mailboxes.a@example.com.mySecret would lie in a ConfigMap",
    ),
    "a password beside mailboxes": (
        INLINE.replace('mailboxes: {"a@', 'mailboxes: {password: hunter2, "a@'),
        "config.mailboxes.password would lie in a ConfigMap",
    ),
    "a secret in a list": (
        INLINE.replace("{bucket:", "{more: [{private_key: hunter2}], bucket:"),
        "config.mailboxes.a@example.com.more[0].private_key would lie in a ConfigMap",
    ),
    "a key among certificates": (
        INLINE.replace(
            "auth_user: svc", 'auth_oauth_client_credential_certificate: "-----BEGIN PRIVATE KEY-----hunter2"'
        ),
        "put it into the Secret reinfer-credentials under the key ews-oauth-private-key.pem, and set login.type",
    ),
    "a key among authorities": (
        INLINE + 'caBundle: {pem: "-----BEGIN CERTIFICATE----- -----BEGIN RSA PRIVATE KEY-----hunter2"}\n',
        "caBundle.pem has a private key in it",
    ),
    "a password in the server's address": (
        INLINE.replace("host: exchange", "host: 'https://svc:hunter2@exchange").replace(".com, port", ".com', port"),
        "config.host has a user or password in it, and would lie in a ConfigMap: give the address only, the user in",
    ),
    "a password in the whole address": (
        INLINE.replace(
            "host: exchange.example.com, port: 443", "ews_endpoint: 'https://svc:hunter2@e/EWS/Exchange.asmx'"
        ),
        "config.ews_endpoint has a user or password in it",
    ),
    "a password in the platform's address": (
        'platform: {endpoint: "svc:hunter2@mydomain.reinfer.io"}\n' + CONFIG_MAP,
        "platform.endpoint has a user or password in it, which everybody could read in the pod: give the address only",
    ),
    "a password in a variable": (
        INLINE + "extraEnv: [{name: REINFER_EWS_AUTH_PASS, value: hunter2}]\n",
        "extraEnv: REINFER_EWS_AUTH_PASS could be read by everybody in the pod: remove it, put it into the Secret",
    ),
    "a token in a variable": (
        INLINE + "extraEnv: [{name: reinfer_api_token, value: hunter2}]\n",
        "extraEnv: reinfer_api_token could be read by everybody in the pod",
    ),
    "a proxy's password in a variable": (
        INLINE + 'extraEnv: [{name: ALL_PROXY, value: "http://me:hunter2@proxy:3128"}]\n',
        "extraEnv: ALL_PROXY has a user or password in it, which everybody could read in the pod: put it into a Secret",
    ),
    "another name of the pod": (
        INLINE + "extraEnv: [{name: POD_NAME, value: x}]\n",
        "extraEnv: POD_NAME is the chart's",
    ),
    "no such key of the config": (
        INLINE.replace("host:", "hots:"),
        'config: there is no key "hots"; there are access_type, audit_email, ',
    ),
    "an empty config": (PLATFORM + "config:\n", "the config is missing: give config (the JSON file's keys)"),
    "an empty endpoint": ("platform: {endpoint: }\n" + CONFIG_MAP, "platform.endpoint is missing: set it to"),
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
    "only from the inside": (
        INLINE + "service: {bindAddress: 127.0.0.1}\n",
        'service.bindAddress "127.0.0.1" is open to nobody outside of the container, not even to the probes: set it to',
    ),
    "only from the inside, by name": (
        INLINE + "service: {bindAddress: Localhost}\n",
        'service.bindAddress "Localhost"',
    ),
    "only from the inside, by IPv6": (INLINE + 'service: {bindAddress: "[::1]"}\n', 'service.bindAddress "[::1]"'),
    "another name of the pods": (
        INLINE + "podLabels: {app.kubernetes.io/name: mine}\n",
        "podLabels: app.kubernetes.io/name is the chart's own",
    ),
    "another instance": (
        INLINE + "commonLabels: {app.kubernetes.io/instance: mine}\n",
        "commonLabels: app.kubernetes.io/instance is the chart's own",
    ),
    "too little memory": (
        INLINE + "resources: {limits: {memory: 127Mi}}\n",
        "resources.limits.memory 127Mi is too little: the process may need up to 128Mi",
    ),
    "too little memory, in bytes": (
        INLINE + "resources: {limits: {memory: 134217727}}\n",
        "is too little: the process may need up to 128Mi",
    ),
    "too little disk": (
        INLINE + "temporaryFiles: {sizeLimit: 0.19Gi}\n",
        "temporaryFiles.sizeLimit 0.19Gi is too little: one message may take 150 MB",
    ),
    "root": (INLINE + "podSecurityContext: {runAsUser: 0}\n", "podSecurityContext.runAsUser 0 is root"),
    "root of the container": (INLINE + "securityContext: {runAsUser: 0}\n", "securityContext.runAsUser 0 is root"),
    "perhaps root": (
        INLINE + "securityContext: {runAsNonRoot: false}\n",
        "securityContext.runAsNonRoot false would allow root",
    ),
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
ALLOWED = {
    "a mailbox named for passwords": INLINE.replace("a@example.com", "password-reset@example.com"),
    "a login with an @": INLINE.replace("auth_user: svc", "auth_user: svc@example.com"),
    "a variable of a Secret": INLINE
    + "extraEnv: [{name: REINFER_API_TOKEN, valueFrom: {secretKeyRef: {name: s, key: k}}}]\n",
    "an address in a variable": INLINE + 'extraEnv: [{name: SITE, value: "https://example.com/@me"}]\n',
    "just enough memory": INLINE + "resources: {limits: {memory: 128Mi}}\ntemporaryFiles: {sizeLimit: 200Mi}\n",
    "just enough memory, in bytes": INLINE
    + "resources: {limits: {memory: 134217728}}\ntemporaryFiles: {sizeLimit: 1e9}\n",
    "no limit": INLINE + "resources: {limits: {memory: }}\n",
    "the cluster chooses the user": INLINE + "podSecurityContext: {runAsUser: , runAsGroup: , fsGroup: }\n",
    "another label": INLINE + "commonLabels: {app.kubernetes.io/part-of: mail}\n",
    "an empty config beside another": PLATFORM + CONFIG_MAP + "config:\n",
}


@needs("helm")
@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED)
def test_values_that_cannot_work_are_refused(values: str, message: str) -> None:
    result = template(values=values)
    assert result.returncode != 0
    assert message in result.stdout
    assert "hunter2" not in result.stdout


@needs("helm")
@pytest.mark.parametrize("values", ALLOWED.values(), ids=ALLOWED)
def test_what_only_looks_wrong_is_allowed(values: str) -> None:
    assert rendered(values)


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


def empty(name: str) -> str:
    """Write values that are well, but for the one of that whole name, which is left empty."""
    values: dict[str, Any] = yaml.safe_load(PLATFORM + CONFIG_MAP)
    values |= {section: {"enabled": True} for section in ("networkPolicy", "prometheusRule", "serviceMonitor")}
    *above, last = name.split(".")
    place = values
    for key in above:
        place = place.setdefault(key, {})
    place[last] = None
    return yaml.safe_dump(values)


@needs("helm")
@pytest.mark.parametrize("name", sorted({*defaults(), *dict(leaves(defaults()))}))
def test_what_is_left_empty_is_taken_as_empty_or_refused_by_name(name: str) -> None:
    result = template(values=empty(name))
    if result.returncode:
        above, _, last = f".{name}".rpartition(".")
        by_name = (f"at '{above.replace('.', '/')}': missing property '{last}'", f"{name} is missing", f"{name},")
        assert any(words in result.stdout for words in by_name), result.stdout


def test_the_keys_of_the_config_are_those_of_its_schema() -> None:
    schema = json.loads((REPOSITORY / "docs" / "config.schema.json").read_text(encoding="utf-8"))["properties"]
    text = (CHART / "templates" / "_validate.tpl").read_text(encoding="utf-8")
    known = text.partition('{{- define "ews-sync.configKeys" -}}\n')[2].partition("{{- end -}}")[0]
    assert yaml.safe_load(known) == sorted(key for key in schema if not schema[key].get("writeOnly"))


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
