"""The folders that a new mailbox has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class FolderPlan:
    """A folder to make: its name, class, distinguished id, and the folders in it."""

    name: str
    folder_class: str | None = None
    distinguished: str | None = None
    children: tuple[FolderPlan, ...] = ()
    is_search: bool = False


_SYNC_ISSUES: Final = FolderPlan(
    "Sync Issues",
    "IPF.Note",
    "syncissues",
    (
        FolderPlan("Conflicts", "IPF.Note", "conflicts"),
        FolderPlan("Local Failures", "IPF.Note", "localfailures"),
        FolderPlan("Server Failures", "IPF.Note", "serverfailures"),
    ),
)

_TOP: Final = FolderPlan(
    "Top of Information Store",
    None,
    "msgfolderroot",
    (
        FolderPlan("Archive", "IPF.Note", "archive"),
        FolderPlan("Calendar", "IPF.Appointment", "calendar"),
        FolderPlan(
            "Contacts",
            "IPF.Contact",
            "contacts",
            (
                FolderPlan("Recipient Cache", "IPF.Contact.RecipientCache", "recipientcache"),
                FolderPlan("{A9E2BC46-B3A0-4243-B315-60D991004455}", "IPF.Contact.MOC.ImContactList", "imcontactlist"),
            ),
        ),
        FolderPlan("Conversation Action Settings", "IPF.Configuration"),
        FolderPlan("Conversation History", "IPF.Note", "conversationhistory"),
        FolderPlan("Deleted Items", "IPF.Note", "deleteditems"),
        FolderPlan("Drafts", "IPF.Note", "drafts"),
        FolderPlan("Inbox", "IPF.Note", "inbox"),
        FolderPlan("Journal", "IPF.Journal", "journal"),
        FolderPlan("Junk Email", "IPF.Note", "junkemail"),
        FolderPlan("Notes", "IPF.StickyNote", "notes"),
        FolderPlan("Outbox", "IPF.Note", "outbox"),
        FolderPlan("RSS Feeds", "IPF.Note.OutlookHomepage"),
        FolderPlan("Sent Items", "IPF.Note", "sentitems"),
        _SYNC_ISSUES,
        FolderPlan("Tasks", "IPF.Task", "tasks"),
    ),
)

DEFAULT_TREE: Final = (
    FolderPlan(
        "",
        None,
        "root",
        (
            FolderPlan("Common Views"),
            FolderPlan("Deferred Action"),
            FolderPlan(
                "Finder",
                None,
                "searchfolders",
                (
                    FolderPlan("Reminders", "Outlook.Reminder", is_search=True),
                    FolderPlan("To-Do Search", "IPF.Task", "todosearch", is_search=True),
                ),
            ),
            FolderPlan("Freebusy Data"),
            FolderPlan(
                "Recoverable Items",
                None,
                "recoverableitemsroot",
                (
                    FolderPlan("Deletions", None, "recoverableitemsdeletions"),
                    FolderPlan("Purges", None, "recoverableitemspurges"),
                    FolderPlan("Versions", None, "recoverableitemsversions"),
                ),
            ),
            FolderPlan("Shortcuts"),
            FolderPlan("Spooler Queue"),
            _TOP,
        ),
    ),
)
"""The folders of a new mailbox, from the invisible root down."""
