"""What a request wants to be told of items and folders, and the writing of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ews_sync.simulator.errors import EwsError
from ews_sync.simulator.extended import ExtendedPath
from ews_sync.simulator.fields import FIELDS_BY_URI, ITEM_FIELDS, element_kind, fields_of, write_rights
from ews_sync.simulator.grammar import local

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lxml import etree

    from ews_sync.simulator.fields import ItemField, Value, Write
    from ews_sync.simulator.folder import Folder
    from ews_sync.simulator.item import Item
    from ews_sync.simulator.wire import XmlWriter

_AFTER_EXTENDED: Final = "item:HasAttachments"
_NOT_IN_ALL: Final = frozenset({"item:MimeContent", "item:TextBody"})
_GET_ONLY_OTHERS: Final = frozenset(
    {"item:UniqueBody", "item:NormalizedBody", "item:FirstBody", "item:MimeContentUTF8"}
)
_FOLDER_KINDS: Final = (
    ("IPF.APPOINTMENT", "CalendarFolder"),
    ("IPF.CONTACT", "ContactsFolder"),
    ("IPF.TASK", "TasksFolder"),
)
_WITH_UNREAD: Final = frozenset({"Folder", "TasksFolder", "SearchFolder"})
_FOLDER_DEFAULT: Final = frozenset(
    {"folder:FolderId", "folder:DisplayName", "folder:TotalCount", "folder:ChildFolderCount", "folder:UnreadCount"}
)
_FOLDER_ALL: Final = _FOLDER_DEFAULT | {"folder:ParentFolderId", "folder:FolderClass", "folder:EffectiveRights"}
_FOLDER_VALUES: Final[dict[str, Callable[[Folder], Value]]] = {
    "folder:FolderId": lambda folder: folder.id,
    "folder:ParentFolderId": lambda folder: folder.parent.id if folder.parent else None,
    "folder:DisplayName": lambda folder: folder.name,
    "folder:FolderClass": lambda folder: folder.folder_class,
    "folder:TotalCount": len,
    "folder:UnreadCount": lambda folder: folder.unread,
    "folder:ChildFolderCount": lambda folder: len(folder.children),
    "folder:DistinguishedFolderId": lambda folder: folder.distinguished,
}


@dataclass(frozen=True, slots=True)
class ItemShape:
    """Which properties of items to write; `full` as GetItem does, else as a search does."""

    base: str
    uris: frozenset[str]
    extended: tuple[ExtendedPath, ...]
    with_mime: bool
    full: bool

    @classmethod
    def read(cls, element: etree._Element, *, full: bool) -> ItemShape:
        """Read an ItemShape or AttachmentShape.

        Raises:
            EwsError: it asks a search for what only GetItem returns, or an extended property's path makes no sense.

        """
        base = next((str(found.text) for found in element if local(found) == "BaseShape"), "IdOnly")
        mime = next((str(found.text).strip() for found in element if local(found) == "IncludeMimeContent"), "false")
        uris, extended = _additional(element)
        for uri in uris:
            known = FIELDS_BY_URI.get(uri)
            if not full and (uri in _GET_ONLY_OTHERS or (known is not None and known.get_only)):
                raise EwsError("ErrorInvalidPropertyRequest", f"The property {uri} cannot be returned by a search.")
        with_mime = full and (mime in {"true", "1"} or "item:MimeContent" in uris)
        return cls(base, uris, extended, with_mime, full)

    def fields(self, kind: str, without: frozenset[int]) -> Iterator[Write]:
        """Yield what writes an element of a kind, in the order of the schema, but for the tags in `without`."""
        for field in ITEM_FIELDS:
            if self._wants(field):
                yield field.write
            if field.uri == _AFTER_EXTENDED:
                yield from (path.write_of for path in self.extended if path.tag not in without)
        yield from (field.write for field in fields_of(kind) if self._wants(field))

    def _wants(self, field: ItemField) -> bool:
        if field.uri == "item:ItemId":
            return True
        if field.uri == "item:MimeContent":
            return self.with_mime
        if field.uri in self.uris:
            return True
        if field.get_only and not self.full:
            return False
        return (self.base == "Default" and field.default) or (
            self.base == "AllProperties" and field.uri not in _NOT_IN_ALL
        )


class ItemWriter:
    """Writes items in one shape. Extended properties with a tag in `without` are left out.

    What is the same for all items of a class is found out once: a request is about hundreds of them.
    """

    def __init__(self, shape: ItemShape, without: frozenset[int] = frozenset()) -> None:
        self._shape = shape
        self._without = without
        self._plans: dict[str, tuple[str, tuple[Write, ...]]] = {}

    def write(self, out: XmlWriter, item: Item) -> None:
        """Write an item's element."""
        item_class = item.item_class
        tag, fields = self._plans.get(item_class) or self._plan(item_class)
        out.start(tag)
        for write in fields:
            write(out, item, self._shape.full)
        out.end()

    def _plan(self, item_class: str) -> tuple[str, tuple[Write, ...]]:
        kind = element_kind(item_class)
        plan = self._plans[item_class] = (f"t:{kind}", tuple(self._shape.fields(kind, self._without)))
        return plan


@dataclass(frozen=True, slots=True)
class FolderShape:
    """Which properties of folders to write."""

    uris: frozenset[str]
    extended: tuple[ExtendedPath, ...]

    @classmethod
    def read(cls, element: etree._Element) -> FolderShape:
        """Read a FolderShape.

        Raises:
            EwsError: an extended property's path makes no sense.

        """
        base = str(element[0].text)
        uris, extended = _additional(element)
        return cls(uris | {"Default": _FOLDER_DEFAULT, "AllProperties": _FOLDER_ALL}.get(base, frozenset()), extended)

    def write(self, out: XmlWriter, folder: Folder, without: frozenset[int] = frozenset()) -> None:
        """Write a folder's element. Extended properties with a tag in `without` are left out."""
        kind = folder_kind(folder)
        out.start(f"t:{kind}")
        out.identity("t:FolderId", folder.id, folder.change_key)
        self._write_place(out, folder)
        for path in self.extended:
            if path.tag not in without:
                path.write(out, path.of_folder(folder))
        if "folder:EffectiveRights" in self.uris:
            write_rights(out)
        if "folder:DistinguishedFolderId" in self.uris and folder.distinguished is not None:
            out.leaf("t:DistinguishedFolderId", folder.distinguished)
        if "folder:UnreadCount" in self.uris and kind in _WITH_UNREAD:
            out.leaf("t:UnreadCount", str(folder.unread))
        out.end()

    def _write_place(self, out: XmlWriter, folder: Folder) -> None:
        """Write what comes before the extended properties."""
        if "folder:ParentFolderId" in self.uris and folder.parent is not None:
            out.identity("t:ParentFolderId", folder.parent.id, folder.parent.change_key)
        if "folder:FolderClass" in self.uris and folder.folder_class is not None:
            out.leaf("t:FolderClass", folder.folder_class)
        if "folder:DisplayName" in self.uris:
            out.subject("t:DisplayName", folder.name)
        if "folder:TotalCount" in self.uris:
            out.leaf("t:TotalCount", str(len(folder)))
        if "folder:ChildFolderCount" in self.uris:
            out.leaf("t:ChildFolderCount", str(len(folder.children)))


def folder_kind(folder: Folder) -> str:
    """Return the element that stands for a folder."""
    if folder.is_search:
        return "SearchFolder"
    upper = (folder.folder_class or "").upper()
    return next((kind for prefix, kind in _FOLDER_KINDS if upper.startswith(prefix)), "Folder")


def item_reader(path: etree._Element) -> Callable[[Item], Value]:
    """Return the function that reads what a path in a restriction or order names.

    Raises:
        EwsError: items cannot be searched by it.

    """
    if local(path) == "ExtendedFieldURI":
        return _sound(path).of_item
    field = FIELDS_BY_URI.get(str(path.get("FieldURI")))
    if field is None or field.value is None or local(path) != "FieldURI":
        raise EwsError("ErrorUnsupportedPathForQuery", "The property can not be used with this type of restriction.")
    return field.value


def folder_reader(path: etree._Element) -> Callable[[Folder], Value]:
    """Return the function that reads what a path in a restriction on folders names.

    Raises:
        EwsError: folders cannot be searched by it.

    """
    if local(path) == "ExtendedFieldURI":
        return _sound(path).of_folder
    found = _FOLDER_VALUES.get(str(path.get("FieldURI")))
    if found is None or local(path) != "FieldURI":
        raise EwsError("ErrorUnsupportedPathForQuery", "The property can not be used with this type of restriction.")
    return found


def _additional(element: etree._Element) -> tuple[frozenset[str], tuple[ExtendedPath, ...]]:
    uris = set()
    extended = []
    for path in _paths(element):
        name = local(path)
        if name == "FieldURI":
            uris.add(str(path.get("FieldURI")))
        elif name == "IndexedFieldURI" and path.get("FieldURI") == "item:InternetMessageHeader":
            uris.add("item:InternetMessageHeaders")
        elif name == "ExtendedFieldURI":
            extended.append(_sound(path))
    return frozenset(uris), tuple(extended)


def _paths(element: etree._Element) -> Iterator[etree._Element]:
    for child in element:
        if isinstance(child.tag, str) and local(child) == "AdditionalProperties":
            yield from (path for path in child if isinstance(path.tag, str))


def _sound(path: etree._Element) -> ExtendedPath:
    read = ExtendedPath.read(path)
    if not read.is_sound:
        raise EwsError("ErrorInvalidExtendedProperty", "The ExtendedFieldURI's attributes do not go together.")
    return read
