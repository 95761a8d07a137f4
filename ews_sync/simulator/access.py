"""Who may read what: accounts, and the mailboxes that a request is allowed to reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ews_sync.simulator import ids
from ews_sync.simulator.errors import EwsError, RequestFault
from ews_sync.simulator.grammar import local

if TYPE_CHECKING:
    from collections.abc import Collection

    from lxml import etree

    from ews_sync.simulator.folder import Folder
    from ews_sync.simulator.item import Item
    from ews_sync.simulator.store import Exchange, Mailbox


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who can log on.

    `may_impersonate` is True for everybody, or the addresses of those who can be impersonated. `delegate_of` are the
    addresses of mailboxes that the account has full access to. `mailbox` is the address of its own mailbox, if it has
    one: by default `user`.
    """

    user: str
    password: str
    may_impersonate: bool | Collection[str] = False
    delegate_of: Collection[str] = ()
    mailbox: str | None = None

    @property
    def address(self) -> str:
        """The address of the account's own mailbox."""
        return self.user if self.mailbox is None else self.mailbox

    def can_impersonate(self, address: str) -> bool:
        """Whether the account may act as the owner of a mailbox."""
        if isinstance(self.may_impersonate, bool):
            return self.may_impersonate
        return address.casefold() in {other.casefold() for other in self.may_impersonate}


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose rights a request has.

    `acting_as` is the address of the mailbox whose owner the server takes the caller for: the impersonated one, else
    the account's own.
    """

    exchange: Exchange
    account: Account
    acting_as: str
    is_impersonating: bool

    @property
    def principal(self) -> str:
        """Who is charged for the request: with impersonation the mailbox, else the account."""
        return self.acting_as.casefold() if self.is_impersonating else self.account.user.casefold()

    def folder(self, element: etree._Element) -> Folder:
        """Return the folder that a FolderId or DistinguishedFolderId names.

        Raises:
            EwsError: the id is malformed, the folder is not there, or it is not the caller's to see.

        """
        if local(element) == "DistinguishedFolderId":
            return self._distinguished(element)
        text = str(element.get("Id"))
        if not text:
            raise EwsError("ErrorInvalidIdEmpty", "The id is empty.")
        parsed = _parse(text)
        if parsed.kind != "folder":
            raise EwsError("ErrorCannotUseItemIdForFolderId", "An ItemId stands where a FolderId belongs.")
        mailbox = self.exchange.mailbox_of(parsed)
        folder = mailbox.folders_by_number.get(parsed.number) if mailbox else None
        if mailbox is not None:
            self._admit(mailbox)
        if folder is None:
            raise EwsError("ErrorItemNotFound", "The specified object was not found in the store.")
        return folder

    def item(self, text: str) -> Item:
        """Return the item with an id.

        Raises:
            EwsError: as `folder`.

        """
        if not text:
            raise EwsError("ErrorInvalidIdEmpty", "The id is empty.")
        parsed = _parse(text)
        if parsed.kind != "item":
            raise EwsError("ErrorCannotUseFolderIdForItemId", "A FolderId stands where an ItemId belongs.")
        mailbox = self.exchange.mailbox_of(parsed)
        if mailbox is not None:
            self._admit(mailbox)
        item = mailbox.items_by_number.get(parsed.number) if mailbox else None
        if item is None:
            raise EwsError("ErrorItemNotFound", "The specified object was not found in the store.")
        return item

    def own_mailbox(self) -> Mailbox:
        """Return the mailbox of whom the caller acts as.

        Raises:
            EwsError: there is none.

        """
        mailbox = self.exchange.mailbox(self.acting_as)
        if mailbox is None:
            raise EwsError(
                "ErrorMissingEmailAddress",
                "When making a request as an account that does not have a mailbox, you must specify the mailbox "
                "primary SMTP address for any distinguished folder Ids.",
            )
        return mailbox

    def _distinguished(self, element: etree._Element) -> Folder:
        address = next((str(found.text) for found in element.iter("{*}EmailAddress") if found.text), None)
        if address is None:
            mailbox = self.own_mailbox()
        else:
            found = self.exchange.mailbox(address.strip())
            if found is None:
                raise EwsError("ErrorNonExistentMailbox", "The SMTP address has no mailbox associated with it.")
            self._admit(found)
            mailbox = found
        folder = mailbox.distinguished.get(str(element.get("Id")))
        if folder is None or folder.is_deleted:
            raise EwsError("ErrorFolderNotFound", "The specified folder could not be found in the store.")
        return folder

    def _admit(self, mailbox: Mailbox) -> None:
        address = mailbox.address.casefold()
        if address == self.acting_as.casefold():
            return
        if not self.is_impersonating and address in {other.casefold() for other in self.account.delegate_of}:
            return
        raise EwsError("ErrorAccessDenied", "Access is denied. Check credentials and try again.")


def identify(exchange: Exchange, account: Account, impersonation: etree._Element | None) -> Caller:
    """Return whose rights a request has.

    Raises:
        RequestFault: the account may not impersonate whom it names, or there is no such mailbox.

    """
    if impersonation is None:
        return Caller(exchange, account, account.address, is_impersonating=False)
    named = impersonation[0][0]
    address = str(named.text or "").strip()
    if local(named) == "SID":
        raise RequestFault("ErrorInvalidUserSid", "The SID for the impersonated user is not valid.")
    mailbox = exchange.mailbox(address)
    if mailbox is None:
        # A principal name that is unknown is a wrong user; an address, a missing mailbox.
        if local(named) == "PrincipalName":
            raise RequestFault("ErrorInvalidUserPrincipalName", "The UPN for the impersonated user is not valid.")
        raise RequestFault("ErrorNonExistentMailbox", "The SMTP address has no mailbox associated with it.")
    if not account.can_impersonate(address):
        raise RequestFault(
            "ErrorImpersonateUserDenied", "The account does not have permission to impersonate the requested user."
        )
    return Caller(exchange, account, mailbox.address, is_impersonating=True)


def _parse(text: str) -> ids.ParsedId:
    try:
        return ids.parse(text)
    except ids.MalformedIdError:
        raise EwsError("ErrorInvalidIdMalformed", "Id is malformed.") from None
