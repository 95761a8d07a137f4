from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.simulator.soap import NS, START, Client, folder_id, shape, sync_items

if TYPE_CHECKING:
    from ews_sync.simulator.folder import Folder
    from ews_sync.simulator.item import Item


def _deliver(folder: Folder, count: int) -> list[Item]:
    return [folder.deliver(b"\r\n", received=START + timedelta(minutes=n)) for n in range(count)]


def test_the_first_pass_brings_everything_newest_first(client: Client, inbox: Folder) -> None:
    items = _deliver(inbox, 25)
    changes, state = client.sync(inbox, most=10)
    assert changes == [("Create", item.id) for item in reversed(items)]
    assert client.sync(inbox, state) == ([], state)


def test_each_kind_of_change_is_told(client: Client, inbox: Folder) -> None:
    read, updated, moved, deleted, both = _deliver(inbox, 5)
    _, state = client.sync(inbox)
    read.set_read()
    updated.set_categories(["red"])
    both.set_read()
    both.set_categories(["blue"])
    gone = moved.id
    moved.move(inbox.mailbox.folder("Archive"))
    deleted.delete()
    new = inbox.deliver(b"\r\n")
    new.set_read()
    inbox.deliver(b"\r\n").delete()
    changes, _ = client.sync(inbox, state)
    assert sorted(changes) == sorted(
        [
            ("ReadFlagChange", read.id),
            ("Update", updated.id),
            ("Update", both.id),
            ("Delete", gone),
            ("Delete", deleted.id),
            ("Create", new.id),
        ]
    )


def test_a_move_is_a_create_in_the_other_folder(client: Client, inbox: Folder) -> None:
    archive = inbox.mailbox.folder("Archive")
    (item,) = _deliver(inbox, 1)
    _, state = client.sync(archive)
    moved = item.move(archive)
    assert client.sync(archive, state)[0] == [("Create", moved.id)]


def test_a_draft_sent_in_place_is_an_update(client: Client, inbox: Folder) -> None:
    draft = inbox.deliver(b"\r\n", is_draft=True)
    _, state = client.sync(inbox)
    draft.send_in_place()
    answer = client.post(sync_items(inbox, state, item_shape=shape("item:IsDraft")))
    assert answer.changes == [("Update", draft.id)]
    assert answer.text("//t:IsDraft") == "false"


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_lost_whatever_happens_between_pages(client: Client, inbox: Folder, seed: int) -> None:
    rng = random.Random(seed)
    archive = inbox.mailbox.folder("Archive")
    _deliver(inbox, 40)
    _deliver(archive, 10)
    known: set[str] = set()
    state: str | None = None
    for step in range(200):
        answer = client.post(sync_items(inbox, state, most=rng.randrange(1, 9)))
        state = answer.text("//m:SyncState")
        for kind, identity in answer.changes:
            if kind == "Create":
                assert identity not in known
                known.add(identity)
            elif kind == "Delete":
                known.discard(identity)
            else:
                assert identity in known
        if step > 120:
            if answer.is_last:
                break
            continue
        for _ in range(rng.randrange(3)):
            _happen(rng, inbox, archive)
    assert answer.is_last
    assert known == {item.id for item in inbox.items()}


def _happen(rng: random.Random, inbox: Folder, archive: Folder) -> None:
    here, there = list(inbox.items()), list(archive.items())
    event = rng.randrange(6)
    if event == 0 or not here:
        inbox.deliver(b"\r\n", received=START + timedelta(minutes=rng.randrange(-100, 100)))
    elif event == 1:
        rng.choice(here).delete()
    elif event == 2:
        rng.choice(here).move(archive)
    elif event == 3 and there:
        rng.choice(there).move(inbox)
    elif event == 4:
        item = rng.choice(here)
        item.set_read(not item.is_read)
    else:
        rng.choice(here).touch()


def test_states_are_opaque_and_grow_with_the_folder(client: Client, inbox: Folder) -> None:
    _, small = client.sync(inbox)
    for _ in range(5000):
        inbox.deliver(b"\r\n")
    _, large = client.sync(inbox)
    assert len(small) < 300 < len(large)


@pytest.mark.parametrize("spoil", [lambda s: s[:40], lambda s: "Q" + s[1:], lambda _: "nonsense!", lambda _: "AAAA"])
def test_spoiled_states_are_refused(client: Client, inbox: Folder, spoil: object) -> None:
    _, state = client.sync(inbox)
    assert callable(spoil)
    answer = client.post(sync_items(inbox, spoil(state)))
    assert answer.codes == ["ErrorInvalidSyncStateData"]


def test_states_are_for_one_folder_and_can_be_forgotten(client: Client, inbox: Folder) -> None:
    _, state = client.sync(inbox)
    archive = inbox.mailbox.folder("Archive")
    assert client.post(sync_items(archive, state)).codes == ["ErrorInvalidSyncStateData"]
    inbox.mailbox.forget_sync_states()
    assert client.post(sync_items(inbox, state)).codes == ["ErrorInvalidSyncStateData"]
    assert client.post(sync_items(inbox)).codes == ["NoError"]


def test_ignored_items_are_left_out(client: Client, inbox: Folder) -> None:
    first, second = _deliver(inbox, 2)
    ignore = f'<m:Ignore><t:ItemId Id="{first.id}"/></m:Ignore><m:MaxChangesReturned>'
    answer = client.post(sync_items(inbox).replace("<m:MaxChangesReturned>", ignore))
    assert answer.changes == [("Create", second.id)]


@pytest.mark.parametrize("most", [0, 513])
def test_the_size_of_a_page_is_limited(client: Client, inbox: Folder, most: int) -> None:
    assert client.post(sync_items(inbox, most=most)).fault == "ErrorSchemaValidation"


def test_a_missing_folder_and_a_search_folder(client: Client, inbox: Folder) -> None:
    lost = inbox.mailbox.folder("Lost")
    request = sync_items(lost)
    lost.delete()
    assert client.post(request).codes == ["ErrorSyncFolderNotFound"]
    searches = inbox.mailbox.distinguished["todosearch"]
    assert client.post(sync_items(searches)).codes == ["ErrorInvalidOperation"]


def test_exchange_2007_has_no_read_flag_changes(client: Client, inbox: Folder) -> None:
    (item,) = _deliver(inbox, 1)
    _, state = client.sync(inbox)
    item.set_read()
    assert client.post(sync_items(inbox, state), version="Exchange2007_SP1").changes == [("Update", item.id)]


def test_the_hierarchy_is_followed(client: Client, inbox: Folder) -> None:
    mailbox = inbox.mailbox

    def sync(state: str = "") -> tuple[list[tuple[str, str]], str]:
        known = f"<m:SyncState>{state}</m:SyncState>" if state else ""
        answer = client.post(
            "<m:SyncFolderHierarchy><m:FolderShape><t:BaseShape>Default</t:BaseShape></m:FolderShape>"
            f"<m:SyncFolderId>{folder_id(mailbox.top)}</m:SyncFolderId>{known}</m:SyncFolderHierarchy>"
        )
        found = [
            (str(change.tag).rpartition("}")[2], change.xpath("string(.//t:FolderId/@Id)", namespaces=NS))
            for change in answer.all("//m:Changes/*")
        ]
        return found, answer.text("//m:SyncState")

    doomed = mailbox.folder("Doomed")
    first, state = sync()
    assert {identity for _, identity in first} == {folder.id for folder in mailbox.folders()}
    new = mailbox.folder("New")
    new.rename("Newer")
    inbox.rename("Posteingang")
    doomed.delete()
    assert sorted(sync(state)[0]) == sorted([("Create", new.id), ("Update", inbox.id), ("Delete", doomed.id)])
