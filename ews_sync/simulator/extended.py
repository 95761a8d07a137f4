"""Extended properties: what lies below the named ones, asked for by tag, or by name among the internet headers."""

from __future__ import annotations

from binascii import b2a_base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ews_sync.simulator import parts
from ews_sync.simulator.item import Flag
from ews_sync.simulator.wire import boolean, markup_of, wire_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lxml import etree

    from ews_sync.simulator.fields import Value
    from ews_sync.simulator.folder import Folder
    from ews_sync.simulator.item import Item
    from ews_sync.simulator.wire import XmlWriter

LOCAL_COMMIT_TIME_MAX: Final = 0x670A
DELETED_COUNT_TOTAL: Final = 0x670B

_ITEM_TAGS: Final[Mapping[tuple[int, str], Callable[[Item], Value]]] = {
    (0x001A, "String"): lambda item: item.item_class,
    (0x0037, "String"): lambda item: item.properties.subject,
    (0x0039, "SystemTime"): lambda item: item.properties.sent,
    (0x0070, "String"): lambda item: item.properties.conversation_topic,
    (0x007D, "String"): lambda item: "\r\n".join(f"{name}: {value}" for name, value in parts.headers(item.mime())),
    (0x0E06, "SystemTime"): lambda item: item.received,
    (0x0E07, "Integer"): lambda item: item.is_read + 8 * item.is_draft + 4 * bool(item.flags & Flag.SUBMITTED),
    (0x0E08, "Integer"): lambda item: item.properties.size,
    (0x0E08, "Long"): lambda item: item.properties.size,
    (0x1035, "String"): lambda item: item.properties.message_id,
    (0x3007, "SystemTime"): lambda item: item.created,
    (0x3008, "SystemTime"): lambda item: item.modified,
    (0x300B, "Binary"): lambda item: item.search_key,
}
_FOLDER_TAGS: Final[Mapping[tuple[int, str], Callable[[Folder], Value]]] = {
    (0x0E08, "Integer"): lambda folder: sum(item.properties.size for item in folder.items()) % 2**31,
    (0x0E08, "Long"): lambda folder: sum(item.properties.size for item in folder.items()),
    (0x10F4, "Boolean"): lambda folder: folder.is_search or folder.name == "Conversation Action Settings",
    (0x3001, "String"): lambda folder: folder.name,
    (0x3601, "Integer"): lambda folder: 2 if folder.is_search else 1,
    (0x3602, "Integer"): len,
    (0x3603, "Integer"): lambda folder: folder.unread,
    (0x3613, "String"): lambda folder: folder.folder_class,
    (LOCAL_COMMIT_TIME_MAX, "SystemTime"): lambda folder: folder.local_commit_time_max,
    (DELETED_COUNT_TOTAL, "Integer"): lambda folder: folder.deleted_count,
}


@dataclass(frozen=True, slots=True)
class ExtendedPath:
    """An ExtendedFieldURI: its attributes as they came and as they stand in an answer, and the tag as a number."""

    attributes: tuple[tuple[str, str], ...]
    markup: str
    tag: int | None
    header: str | None
    kind: str

    @classmethod
    def read(cls, element: etree._Element) -> ExtendedPath:
        """Read the element."""
        attributes = tuple((str(name), str(value)) for name, value in element.attrib.items())
        given = dict(attributes)
        tag = given.get("PropertyTag")
        is_header = given.get("DistinguishedPropertySetId") == "InternetHeaders"
        return cls(
            attributes,
            markup_of(given),
            int(tag, 16 if tag[:2].lower() == "0x" else 10) if tag else None,
            given.get("PropertyName") if is_header else None,
            given["PropertyType"],
        )

    @property
    def is_sound(self) -> bool:
        """Whether the attributes go together: a tag, or a set with a name or an id, and not both."""
        given = {name for name, _ in self.attributes}
        if "PropertyTag" in given:
            return given == {"PropertyTag", "PropertyType"}
        sets = given & {"PropertySetId", "DistinguishedPropertySetId"}
        return len(sets) == 1 and len(given & {"PropertyName", "PropertyId"}) == 1

    def of_item(self, item: Item) -> Value:
        """Return an item's value; None if it has none, or the simulator does not know the property."""
        if self.header is not None:
            wanted = self.header.casefold()
            return next((text for name, text in parts.headers(item.mime()) if name.casefold() == wanted), None)
        found = _ITEM_TAGS.get((self.tag or 0, self.kind))
        return found(item) if found else None

    def of_folder(self, folder: Folder) -> Value:
        """Return a folder's value; None as for items."""
        found = _FOLDER_TAGS.get((self.tag or 0, self.kind))
        return found(folder) if found else None

    def write_of(self, out: XmlWriter, item: Item, _full: bool) -> None:  # noqa: FBT001 - one of the family in `fields`
        """Write an item's property."""
        self.write(out, self.of_item(item))

    def write(self, out: XmlWriter, value: Value) -> None:
        """Write the property, unless there is none."""
        if value is None:
            return
        if isinstance(value, bool):
            text = boolean(value)
        elif isinstance(value, bytes):
            text = b2a_base64(value, newline=False).decode("ascii")
        elif isinstance(value, (str, int)):
            text = str(value)
        else:
            text = wire_time(value)
        out.start("t:ExtendedProperty")
        out.described("t:ExtendedFieldURI", self.markup)
        out.leaf("t:Value", text)
        out.end()
