"""Names from outside in lines, in URLs and in headers; for those in paths see tests/sinks/test_paths.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings, strategies as st
from lxml import etree

from ews_sync.errors import ConfigurationError, ProtocolError
from ews_sync.model import Bucket
from ews_sync.settings.addresses import email_address, path_name
from ews_sync.settings.load import read_config
from ews_sync.settings.problems import spelled
from ews_sync.settings.values import RunOptions
from ews_sync.sinks.dead_letters import _line
from ews_sync.sinks.new_email import json_bytes
from ews_sync.sinks.platform.api import _bucket_path, _state_path
from ews_sync.sources.ews.encoding import encode
from ews_sync.sources.ews.operations import Access, GetItem
from tests.fuzz.names import NAMES
from tests.sinks.builders import a_letter

CONTROLS = "".join(map(chr, (*range(0x20), *range(0x7F, 0xA0))))


def assert_one_harmless_line(line: str) -> None:
    assert len(line.splitlines()) <= 1
    assert not set(line) & set(CONTROLS)


@given(NAMES, NAMES, NAMES, NAMES)
def test_a_dead_letter_is_one_line_that_no_terminal_obeys(item: str, folder: str, code: str, reason: str) -> None:
    letter = replace(a_letter(item, code), folder=(folder, item), reason=reason, known={folder: code})
    line = json_bytes(_line(letter, "2026-01-01T00:00:00Z"))
    assert_one_harmless_line(line.decode("utf-8", "strict"))
    said = json.loads(line)
    assert [said["id"], said["folder"], said["code"], said["reason"]] == [item, [folder, item], code, reason]


@given(st.lists(NAMES | st.integers(0, 9), min_size=1, max_size=3))
def test_the_way_to_a_key_is_one_short_line(path: list[str | int]) -> None:
    line = spelled(tuple(path))
    assert_one_harmless_line(line)
    assert len(line) < 3 * 6 * 400


@given(NAMES.filter(bool), NAMES.filter(bool))
def test_names_in_a_url_stay_one_segment_each(owner: str, name: str) -> None:
    endpoint = httpx.URL("https://platform.test/api/")
    url = endpoint.join(_bucket_path(Bucket(owner, name)))
    assert (url.scheme, url.host, url.query) == ("https", "platform.test", b"")
    segments = url.raw_path.decode("ascii").split("/")
    assert segments[:4] == ["", "api", "_private", "buckets"]
    assert len(segments) == 6
    state = endpoint.join(_state_path(name, {"mailbox_name": owner, "folder_id": name}))
    assert len(state.raw_path.decode("ascii").split("/")) == 7


@given(NAMES, st.sampled_from(["", "@", "@x", "@example.com"]))
def test_an_address_that_the_config_takes_fits_into_a_header(name: str, domain: str) -> None:
    try:
        address = email_address(name + domain)
    except ValueError as error:
        assert_one_harmless_line(str(error))
        return
    assert_one_harmless_line(address)
    assert not any(letter.isspace() for letter in address)
    assert len(address.encode()) <= 320


@given(NAMES)
def test_a_name_that_an_option_takes_stays_in_its_directory(name: str) -> None:
    try:
        part = path_name(name)
    except ValueError as error:
        assert_one_harmless_line(str(error))
        return
    assert part not in {"", ".", ".."}
    assert not set(part) & set("/\\\0")
    assert_one_harmless_line(part)


@given(NAMES, NAMES)
@settings(deadline=None)
def test_ids_and_addresses_cannot_break_out_of_a_request(item_id: str, address: str) -> None:
    try:
        request = encode(GetItem((item_id,)), Access(address, impersonate=True))
    except ProtocolError:
        return
    plain = encode(GetItem(("x",)), Access("x", impersonate=True))
    assert [node.tag for node in etree.fromstring(request).iter()] == [
        node.tag for node in etree.fromstring(plain).iter()
    ]
    assert [node.get("Id") for node in etree.fromstring(request).iterfind(".//{*}ItemId")] == [item_id]


@pytest.mark.parametrize("config", ['{"\\ud800": 1}', '{"mailboxes": {"\\uD83D@b.c": {}}}', '{"host": ["\\udd25"]}'])
def test_half_a_character_in_a_config_is_one_problem(config: str) -> None:
    with pytest.raises(ConfigurationError, match="half a character") as caught:
        read_config(RunOptions(local_files_prefix=Path("/p")), {}, config.encode())
    assert_one_harmless_line(str(caught.value))
