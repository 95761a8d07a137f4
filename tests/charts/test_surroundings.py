"""What the chart makes around the instances: volumes, the network, and what watches them."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.charts.programs import (
    ALERTS,
    DASHBOARD,
    Manifest,
    container_of,
    needs,
    one,
    option,
    pod_of,
    rendered,
    rendered_file,
    template,
    variables_of,
)
from tests.charts.test_instances import CONFIG_MAP, INLINE, PLATFORM

pytestmark = needs("helm")


def ports_to(policy: Manifest) -> list[tuple[list[int], list[str]]]:
    """Give the ports and networks of each way out."""
    return [
        ([port["port"] for port in rule.get("ports", [])], [peer["ipBlock"]["cidr"] for peer in rule.get("to", [])])
        for rule in policy["spec"]["egress"][1:]
    ]


def test_each_instance_that_writes_files_has_a_volume_of_its_own() -> None:
    manifests = rendered_file("local-files")
    spec = one(manifests, "StatefulSet")["spec"]
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert claim["spec"]["resources"] == {"requests": {"storage": "200Gi"}}
    assert claim["spec"]["storageClassName"] == "fast"
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Delete", "whenScaled": "Retain"}
    prefix = option(manifests, "--local-files-prefix")
    (mount,) = (each for each in container_of(manifests)["volumeMounts"] if each["name"] == "data")
    assert mount["mountPath"] == prefix
    assert option(manifests, "--local-files-format") == "jsonl"
    assert option(manifests, "--reinfer-api-endpoint") is None


def test_claims_never_change_with_the_version() -> None:
    (claim,) = one(rendered_file("local-files"), "StatefulSet")["spec"]["volumeClaimTemplates"]
    assert not any("version" in label or "chart" in label for label in claim["metadata"]["labels"])


def test_a_claim_that_is_there_already_is_used() -> None:
    manifests = rendered_file("existing-claim")
    assert "volumeClaimTemplates" not in one(manifests, "StatefulSet")["spec"]
    (volume,) = (each for each in pod_of(manifests)["volumes"] if each["name"] == "data")
    assert volume["persistentVolumeClaim"] == {"claimName": "mail"}
    assert option(manifests, "--remote-config-owner") == "insurance"


def test_dead_letters_lie_on_a_volume() -> None:
    manifests = rendered_file("dead-letters")
    (mount,) = (each for each in container_of(manifests)["volumeMounts"] if each["name"] == "data")
    assert option(manifests, "--dead-letter-dir") == f"{mount['mountPath']}/dead-letters"


def test_the_config_on_the_platform_needs_no_volume() -> None:
    manifests = rendered_file("remote-config")
    assert option(manifests, "--remote-config-key") == "live"
    assert "REINFER_EWS_CONFIG" not in variables_of(manifests)
    assert not any(each["kind"] == "ConfigMap" for each in manifests)
    assert "--restart-on-unrecoverable-errors" not in container_of(manifests)["args"]
    assert "--restart-on-unrecoverable-errors" in container_of(rendered_file("documented"))["args"]


def test_proxies_and_authorities() -> None:
    closed = variables_of(rendered_file("closed-network"))
    assert closed["HTTPS_PROXY"] == closed["HTTP_PROXY"] == "http://proxy.example.com:3128"
    assert closed["NO_PROXY"] == "exchange.example.com,10.0.0.0/8"
    assert closed["SSL_CERT_FILE"] == "/mnt/ca/ca.crt"

    manifests = rendered_file("secret-proxy")
    assert "SSL_CERT_FILE" not in variables_of(manifests)
    config = json.loads(one(manifests, "ConfigMap", "-config")["data"]["example_ews_config"])
    assert config["ews_ssl_ca_bundle"] == "/mnt/ca/ca.crt"
    (volume,) = (each for each in pod_of(manifests)["volumes"] if each["name"] == "ca-bundle")
    assert volume["configMap"] == {"name": "company-ca", "items": [{"key": "bundle.pem", "path": "ca.crt"}]}
    secret = {each["name"]: each["valueFrom"] for each in container_of(manifests)["env"] if "valueFrom" in each}
    assert secret["HTTPS_PROXY"]["secretKeyRef"]["name"] == "proxy-with-password"


def test_the_network_is_open_only_where_it_has_to_be() -> None:
    policy = one(rendered_file("closed-network"), "NetworkPolicy")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert ports_to(policy) == [
        ([443, 8443], ["10.1.0.0/16", "fd00::/8"]),
        ([3128], ["10.2.0.7/32"]),
        ([], ["10.3.0.0/16"]),
    ]
    assert {port["protocol"] for port in policy["spec"]["egress"][0]["ports"]} == {"UDP", "TCP"}


@pytest.mark.parametrize(
    ("values", "ways"),
    [
        (PLATFORM + CONFIG_MAP, 2),
        (PLATFORM + CONFIG_MAP + "login: {type: oauth2-secret}\n", 3),
        (PLATFORM + CONFIG_MAP + 'proxy: {https: "http://p:3128"}\n', 3),
        ("localFiles: {enabled: true}\n" + CONFIG_MAP, 1),
    ],
    ids=["platform", "identity provider", "proxy", "files"],
)
def test_ways_out_are_those_that_are_used(values: str, ways: int) -> None:
    policy = one(rendered(values + "networkPolicy: {enabled: true}\n"), "NetworkPolicy")
    assert len(ports_to(policy)) == ways


def test_the_test_pod_may_ask_every_instance() -> None:
    manifests = rendered_file("closed-network")
    test = one(manifests, "Pod")
    ingress = one(manifests, "NetworkPolicy")["spec"]["ingress"][0]
    assert ingress["from"][0]["podSelector"]["matchLabels"].items() <= test["metadata"]["labels"].items()
    (container,) = test["spec"]["containers"]
    assert container["command"] == ["python3", "-c"]
    name = one(manifests, "StatefulSet")["metadata"]["name"]
    assert container["args"][1:] == [f"http://{name}-{number}.{name}.mail.svc:8000" for number in range(2)]
    compile(container["args"][0], "answers.py", "exec")


def test_nothing_is_tested_while_nothing_runs() -> None:
    assert not any(each["kind"] == "Pod" for each in rendered_file("stopped"))


def test_metrics_of_an_instance_keep_its_name() -> None:
    manifests = rendered_file("observed")
    monitor = one(manifests, "ServiceMonitor")
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["relabelings"] == [{"sourceLabels": ["__meta_kubernetes_pod_name"], "targetLabel": "instance"}]
    assert endpoint["path"] == "/metrics"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    # An instance that is not ready has to be seen, too.
    assert one(manifests, "Service")["spec"]["publishNotReadyAddresses"] is True


def test_alerts_are_those_of_the_file() -> None:
    plain = one(rendered(PLATFORM + CONFIG_MAP + "prometheusRule: {enabled: true}\n"), "PrometheusRule")
    assert plain["spec"] == yaml.safe_load(ALERTS.read_text(encoding="utf-8"))


def test_alerts_are_left_out_labelled_and_linked_as_wanted() -> None:
    groups = one(rendered_file("observed"), "PrometheusRule")["spec"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    everything = [
        rule["alert"]
        for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]
    assert [rule["alert"] for rule in rules] == [name for name in everything if name != "EwsSyncMemoryHigh"]
    for rule in rules:
        assert rule["labels"] == {"team": "mail", "severity": "page"}
        link = f"https://handbook.example.com/operations#alert-{rule['alert'].lower()}"
        assert rule["annotations"]["runbook_url"] == link


def test_the_dashboard_is_that_of_the_file() -> None:
    found = one(rendered_file("observed"), "ConfigMap", "-dashboard")
    assert json.loads(found["data"]["ews-sync.json"]) == json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_a_drain_takes_one_instance_at_a_time() -> None:
    assert one(rendered_file("observed"), "PodDisruptionBudget")["spec"]["maxUnavailable"] == "50%"
    default = rendered(PLATFORM + CONFIG_MAP + "podDisruptionBudget: {enabled: true}\n")
    assert one(default, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_spreading_is_about_the_instances() -> None:
    (constraint,) = pod_of(rendered_file("everything-else"))["topologySpreadConstraints"]
    assert constraint["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == "appliance"
    assert constraint["maxSkew"] == 1


def test_an_inline_config_may_name_authorities_itself() -> None:
    own = INLINE.replace("auth_user: svc,", "auth_user: svc, ews_ssl_ca_bundle: /mnt/own.pem,")
    manifests = rendered(own + "caBundle: {existingConfigMap: ca}\n")
    config = json.loads(one(manifests, "ConfigMap", "-config")["data"]["example_ews_config"])
    assert config["ews_ssl_ca_bundle"] == "/mnt/own.pem"


def test_rendering_is_the_same_every_time() -> None:
    assert template(values=INLINE).stdout == template(values=INLINE).stdout
