"""What the chart makes: the documented StatefulSet, and that its pods may run where little is allowed."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.charts.programs import (
    NAMESPACE,
    VALUES,
    Manifest,
    container_of,
    lint,
    needs,
    one,
    option,
    pod_of,
    rendered,
    rendered_file,
    variables_of,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs("helm")

PLATFORM = 'platform: {endpoint: "https://mydomain.reinfer.io/api/"}\n'
CONFIG_MAP = "existingConfigMap: {name: ews-config}\n"
INLINE = PLATFORM + (
    "config: {host: exchange.example.com, port: 443, auth_type: ntlm, auth_user: svc,\n"
    '  mailboxes: {"a@example.com": {bucket: {owner: o, name: n}, start_timestamp: "2024-01-01T00:00:00+00:00"}}}\n'
)
NAMES = [file.stem for file in VALUES]


def pods(manifests: list[Manifest]) -> list[Manifest]:
    """Give the specs of all pods: the instances', and that of `helm test`."""
    return [pod_of(manifests), *(each["spec"] for each in manifests if each["kind"] == "Pod")]


@pytest.mark.parametrize("file", VALUES, ids=NAMES)
def test_helm_finds_nothing_wrong(file: Path) -> None:
    result = lint(file)
    assert result.returncode == 0, result.stdout


def test_the_documented_stateful_set() -> None:
    manifests = rendered_file("documented")
    spec = one(manifests, "StatefulSet")["spec"]
    container = container_of(manifests)
    assert spec["replicas"] == 1
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["serviceName"] == one(manifests, "Service")["metadata"]["name"]
    assert container["args"][:9] == [
        "reinfer-ews", "--bind", "0.0.0.0:8000", "--reinfer-api-endpoint", "https://mydomain.reinfer.io/api/",
        "--shard-name", "$(POD_NAME)", "--total-shards", "1",
    ]  # fmt: skip
    assert container["resources"]["requests"] == {"cpu": "50m", "memory": "128Mi"}
    assert variables_of(manifests)["REINFER_EWS_CONFIG"] == "/mnt/config/example_ews_config"
    assert container["env"][0] == {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    volumes = {volume["name"]: volume for volume in pod_of(manifests)["volumes"]}
    assert volumes["config"]["configMap"] == {
        "name": "ews-config",
        "items": [{"key": "example_ews_config", "path": "example_ews_config"}],
    }
    assert volumes["credentials"]["secret"]["secretName"] == "reinfer-credentials"
    keys = {item["path"]: item["key"] for item in volumes["credentials"]["secret"]["items"]}
    assert keys == {"apiToken": "reinfer-api-token", "password": "ews-auth-pass"}


@pytest.mark.parametrize("name", NAMES)
def test_there_are_as_many_shards_as_instances(name: str) -> None:
    manifests = rendered_file(name)
    replicas = one(manifests, "StatefulSet")["spec"]["replicas"]
    assert option(manifests, "--total-shards") == str(max(replicas, 1))
    assert option(manifests, "--shard-name") == "$(POD_NAME)"


@pytest.mark.parametrize("name", NAMES)
def test_pods_keep_to_the_restricted_pod_security_standard(name: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, and beyond it a read-only root."""
    for pod in pods(rendered_file(name)):
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC", "hostUsers", "initContainers"}
        assert pod["automountServiceAccountToken"] is False
        allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected"}
        for volume in pod.get("volumes", ()):
            assert volume.keys() - {"name"} <= allowed | {"secret"}
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] != 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert "sysctls" not in context
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert not own.keys() & {"privileged", "procMount", "seLinuxOptions", "runAsUser", "runAsNonRoot"}
            assert not any("hostPort" in port for port in container.get("ports", ()))


@pytest.mark.parametrize("name", NAMES)
def test_names_are_short_enough_and_of_one_namespace(name: str) -> None:
    manifests = rendered_file(name)
    for manifest in manifests:
        assert manifest["metadata"]["namespace"] == NAMESPACE
        assert len(manifest["metadata"]["name"]) <= 63
    # A pod's label has its name with the number behind it, and with the hash of the revision.
    assert len(one(manifests, "StatefulSet")["metadata"]["name"]) <= 52


@pytest.mark.parametrize("name", NAMES)
def test_what_selects_the_instances_selects_them_and_not_the_test(name: str) -> None:
    manifests = rendered_file(name)
    instances = one(manifests, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        one(manifests, "StatefulSet")["spec"]["selector"]["matchLabels"],
        one(manifests, "Service")["spec"]["selector"],
        *(each["spec"]["selector"]["matchLabels"] for each in manifests if each["kind"] == "PodDisruptionBudget"),
        *(each["spec"]["podSelector"]["matchLabels"] for each in manifests if each["kind"] == "NetworkPolicy"),
    ]
    for selector in selectors:
        assert selector.items() <= instances.items()
        for test in (each for each in manifests if each["kind"] == "Pod"):
            assert not selector.items() <= test["metadata"]["labels"].items()
    for monitor in (each for each in manifests if each["kind"] == "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= one(manifests, "Service")["metadata"]["labels"].items()


@pytest.mark.parametrize("name", NAMES)
def test_every_mount_has_its_volume_and_every_volume_a_use(name: str) -> None:
    manifests = rendered_file(name)
    claims = one(manifests, "StatefulSet")["spec"].get("volumeClaimTemplates", [])
    volumes = [each["name"] for each in pod_of(manifests)["volumes"]] + [each["metadata"]["name"] for each in claims]
    mounted = [each["name"] for each in container_of(manifests)["volumeMounts"]]
    assert sorted(volumes) == sorted(mounted)
    assert len(set(volumes)) == len(volumes)


def test_probes() -> None:
    manifests = rendered_file("everything-else")
    container = container_of(manifests)
    paths = {kind: container[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {
        "startupProbe": {"path": "/healthz", "port": "http"},
        "livenessProbe": {"path": "/healthz", "port": "http"},
        "readinessProbe": {"path": "/readyz", "port": "http"},
    }
    assert container["ports"] == [{"name": "http", "containerPort": 9000}]
    assert option(manifests, "--bind") == "[::]:9000"
    assert pod_of(manifests)["terminationGracePeriodSeconds"] == 30


def test_large_messages_wait_on_a_disk_with_room_for_them() -> None:
    (volume,) = (each for each in pod_of(rendered_file("documented"))["volumes"] if each["name"] == "temporary-files")
    assert volume["emptyDir"] == {"sizeLimit": "1Gi"}  # and no medium: Memory
    (mount,) = (
        each for each in container_of(rendered_file("documented"))["volumeMounts"] if each["name"] == volume["name"]
    )
    assert mount["mountPath"] == "/tmp"


def test_variables_of_other_services_do_not_become_settings() -> None:
    assert all(pod["enableServiceLinks"] is False for pod in pods(rendered_file("documented")))


def test_the_config_is_the_one_that_was_given() -> None:
    data = one(rendered_file("inline-config"), "ConfigMap", "-config")["data"]
    assert json.loads(data["example_ews_config"]) == {
        "host": "https://exchange.example.com",
        "port": 443,
        "auth_type": "ntlm",
        "auth_user": "svc-ews@example.com",
        "access_type": "impersonation",
        "mailboxes": {
            "claims@example.com": {
                "bucket": {"owner": "insurance", "name": "claims"},
                "start_timestamp": "2024-01-01T00:00:00+00:00",
            }
        },
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (INLINE, INLINE.replace("a@example.com", "b@example.com")),
        (INLINE + "credentials: {create: true, values: {apiToken: a, password: p}}\n",
         INLINE + "credentials: {create: true, values: {apiToken: b, password: p}}\n"),
        (INLINE + 'caBundle: {scope: all, pem: "-----BEGIN CERTIFICATE-----\\nA"}\n',
         INLINE + 'caBundle: {scope: all, pem: "-----BEGIN CERTIFICATE-----\\nB"}\n'),
    ],
    ids=["config", "secret", "authorities"],
)  # fmt: skip
def test_pods_are_made_anew_when_what_they_read_changes(before: str, after: str) -> None:
    def annotations(values: str) -> object:
        return one(rendered(values), "StatefulSet")["spec"]["template"]["metadata"]["annotations"]

    assert annotations(before) == annotations(before)
    assert annotations(before) != annotations(after)


def test_pods_stay_when_something_else_changes() -> None:
    def template(values: str) -> object:
        return one(rendered(values), "StatefulSet")["spec"]["template"]

    assert template(INLINE) == template(INLINE + "serviceMonitor: {enabled: true}\n")


def test_secrets_lie_in_the_secret_and_nowhere_else() -> None:
    manifests = rendered_file("oauth2-secret")
    secret = one(manifests, "Secret")
    assert {key: base64.b64decode(value).decode() for key, value in secret["data"].items()} == {
        "reinfer-api-token": "token-of-the-test",
        "ews-oauth-client-secret": "secret-of-the-test",
    }
    elsewhere = yaml.safe_dump([each for each in manifests if each is not secret])
    assert "of-the-test" not in elsewhere
    for value in secret["data"].values():
        assert value not in elsewhere


@pytest.mark.parametrize("name", NAMES)
def test_secrets_reach_the_process_as_files(name: str) -> None:
    manifests = rendered_file(name)
    variables = variables_of(manifests)
    mounted = next((each for each in pod_of(manifests)["volumes"] if each["name"] == "credentials"), None)
    items = {f"/mnt/credentials/{item['path']}" for item in mounted["secret"]["items"]} if mounted else set()
    assert {value for value in variables.values() if value.startswith("/mnt/credentials/")} == items
    for key in ("REINFER_API_TOKEN", "REINFER_EWS_AUTH_PASS", "REINFER_EWS_AUTH_OAUTH_CLIENT_SECRET"):
        assert key not in variables
    assert ("REINFER_API_TOKEN_FILE" in variables) == (option(manifests, "--reinfer-api-endpoint") is not None)


def test_a_client_certificate_comes_as_files() -> None:
    manifests = rendered_file("oauth2-certificate")
    variables = variables_of(manifests)
    assert variables["REINFER_EWS_AUTH_OAUTH_CLIENT_CREDENTIAL_PRIVATE_KEY_FILE"] == "/mnt/credentials/oauthPrivateKey"
    assert variables["REINFER_EWS_AUTH_OAUTH_CLIENT_CREDENTIAL_CERTIFICATE"] == "/mnt/credentials/oauthCertificate"
    assert "REINFER_EWS_AUTH_PASS_FILE" not in variables
    (volume,) = (each for each in pod_of(manifests)["volumes"] if each["name"] == "credentials")
    assert volume["secret"]["secretName"] == "my-secret"
    assert volume["secret"]["defaultMode"] == 0o440
    assert pod_of(manifests)["securityContext"]["fsGroup"] == 10001
