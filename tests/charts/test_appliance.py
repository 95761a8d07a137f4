"""What the chart makes is what the appliance takes: its options, its variables, and the config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ews_sync.settings.exchange import KerberosAuth, NtlmAuth
from ews_sync.settings.load import load_options, read_config
from ews_sync.settings.options import OPTIONS
from tests.charts.programs import VALUES, Manifest, container_of, needs, one, pod_of, rendered_file, variables_of

if TYPE_CHECKING:
    from ews_sync.settings.values import Settings

pytestmark = needs("helm")

INSIDE = ("/mnt/", "/var/lib/")


class Pod:
    """The first instance's container, with what is mounted below a directory of this machine instead."""

    def __init__(self, manifests: list[Manifest], root: Path) -> None:
        self._root = root
        self._manifests = manifests
        self.environ = {name: self._outside(value) for name, value in variables_of(manifests).items()}
        command, *words = (self._outside(str(word)) for word in container_of(manifests)["args"])
        assert command == "reinfer-ews"
        self.arguments = _arguments([word.replace("$(POD_NAME)", "ews-0") for word in words])
        self._mount()

    def _outside(self, path: str) -> str:
        return f"{self._root}{path}" if path.startswith(INSIDE) else path

    def _mount(self) -> None:
        for mount in container_of(self._manifests)["volumeMounts"]:
            Path(self._outside(mount["mountPath"])).mkdir(parents=True, exist_ok=True)
        for volume in pod_of(self._manifests)["volumes"]:
            directory = self._root / "mnt" / volume["name"]
            for item in volume.get("secret", {}).get("items", ()):
                (directory / item["path"]).write_text("of-the-test\n", encoding="utf-8")
            for item in volume.get("configMap", {}).get("items", ()):
                if volume["name"] == "config":
                    (directory / item["path"]).write_text(self._config(), encoding="utf-8")

    def _config(self) -> str:
        found = [each for each in self._manifests if each["metadata"]["name"].endswith("-config")]
        return str(one(found, "ConfigMap")["data"]["example_ews_config"]) if found else "{}"


def _arguments(words: list[str]) -> dict[str, str]:
    known = {option.text: option for option in OPTIONS}
    given = {}
    while words:
        option = known[words.pop(0)]
        given[option.name] = "true" if option.flag else words.pop(0)
    return given


@pytest.mark.parametrize("name", [file.stem for file in VALUES])
def test_the_appliance_takes_the_options_and_variables(name: str, tmp_path: Path) -> None:
    manifests = rendered_file(name)
    pod = Pod(manifests, tmp_path)
    options = load_options(pod.arguments, pod.environ)
    assert options.shard is not None
    assert (options.shard.number, options.shard.total) == (0, max(1, one(manifests, "StatefulSet")["spec"]["replicas"]))
    assert options.bind.port == container_of(manifests)["ports"][0]["containerPort"]
    assert (options.api_token is not None) == (options.reinfer_api_endpoint is not None)


def settings(name: str, root: Path) -> Settings:
    pod = Pod(rendered_file(name), root)
    return read_config(load_options(pod.arguments, pod.environ), pod.environ)


def test_the_appliance_takes_the_config_and_the_password(tmp_path: Path) -> None:
    found = settings("inline-config", tmp_path)
    assert isinstance(found.exchange.auth, NtlmAuth)
    assert found.exchange.auth.password.get_secret_value() == "of-the-test"
    assert [mailbox.address for mailbox in found.mailboxes] == ["claims@example.com"]


def test_no_password_is_needed_for_kerberos(tmp_path: Path) -> None:
    found = settings("kerberos", tmp_path)
    assert isinstance(found.exchange.auth, KerberosAuth)
    assert found.local_files_prefix == tmp_path / "var" / "lib" / "ews-sync"
