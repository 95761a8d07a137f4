"""The SOAP service: from a request's bytes to a response's, with no HTTP.

service = ExchangeService(exchange)
reply = service.answer(service.read(body), account)
body = b"".join(reply.chunks())
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lxml import etree

from ews_sync.simulator import ids, vocabulary
from ews_sync.simulator.access import Account, Caller, identify
from ews_sync.simulator.errors import EwsError, RequestFault
from ews_sync.simulator.faults import Call, Disturbance, IllegalCharacters, Prefixes, SoapFault
from ews_sync.simulator.grammar import Violation, line_of, local
from ews_sync.simulator.grammar_tables import request_grammar
from ews_sync.simulator.operations import Operations, Request
from ews_sync.simulator.wire import ERRORS_NS, MESSAGES_NS, SOAP_NS, TYPES_NS, Dialect, XmlWriter, escape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ews_sync.simulator.store import Exchange, Mailbox

_ENVELOPE: Final = f"{{{SOAP_NS}}}Envelope"
_VERSION: Final = f"{{{TYPES_NS}}}RequestServerVersion"
_IMPERSONATION: Final = f"{{{TYPES_NS}}}ExchangeImpersonation"
_VIOLATES: Final = "The request failed schema validation"
_SERVER_VERSION: Final = (
    ("MajorVersion", "15"),
    ("MinorVersion", "1"),
    ("MajorBuildNumber", "2507"),
    ("MinorBuildNumber", "37"),
    ("Version", "V2017_07_11"),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many entries a page of FindItem or FindFolder has at most, without and with a restriction."""

    find: int = 1000
    find_restricted: int = 250


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A request as far as it could be read. `fault` is set when it is not one that can be answered."""

    operation: str
    body: etree._Element | None = None
    impersonation: etree._Element | None = None
    version: str = ""
    fault: RequestFault | None = None

    @property
    def impersonated(self) -> str | None:
        """The address that the caller wants to act as, unchecked."""
        if self.impersonation is None or self.fault is not None:
            return None
        return str(self.impersonation[0][0].text or "").strip()

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The ids of the items that the request names."""
        return tuple(str(named.get("Id", "")) for named in self._ids("ItemIds"))

    @property
    def item_count(self) -> int:
        """How many ids the request has: of items, folders or attachments."""
        return sum(len(self._ids(name)) for name in ("ItemIds", "ParentFolderIds", "FolderIds", "AttachmentIds"))

    def _ids(self, name: str) -> list[etree._Element]:
        found = None if self.body is None else self.body.find(f"{{{MESSAGES_NS}}}{name}")
        return [] if found is None else list(found.iterchildren("*"))


@dataclass(frozen=True, slots=True)
class Reply:
    """A response: its HTTP status, the error if it is a SOAP fault, and its body in pieces."""

    status: int
    fault: str | None
    writer: XmlWriter

    def chunks(self) -> Iterator[bytes]:
        """Yield the body. What is large is made as it is reached."""
        return self.writer.chunks()


class ExchangeService:
    """Answers requests to the mailboxes of one `Exchange`."""

    def __init__(self, exchange: Exchange, limits: Limits | None = None) -> None:
        self.exchange = exchange
        self._grammar = request_grammar()
        self._operations = Operations(limits or Limits())

    def read(self, body: bytes) -> ReadRequest:
        """Read a request and check it against the schema. What is wrong with it stands in its `fault`."""
        try:
            # No entities and no network: what comes in is not to be trusted, even here.
            root = etree.fromstring(body, etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True))
        except etree.XMLSyntaxError as error:
            return ReadRequest("", fault=_violation(error.lineno or 0, f"{error.msg}"))
        header, content = root.find(f"{{{SOAP_NS}}}Header"), root.find(f"{{{SOAP_NS}}}Body")
        elements = [] if content is None else [child for child in content if isinstance(child.tag, str)]
        if root.tag != _ENVELOPE or len(elements) != 1:
            return ReadRequest("", fault=_violation(line_of(root), "It is no SOAP envelope with one request in it."))
        request = elements[0]
        operation = local(request)
        try:
            version, impersonation = self._read_header(header)
            self._check(request, operation)
        except RequestFault as fault:
            return ReadRequest(operation, fault=fault)
        except Violation as violation:
            return ReadRequest(operation, fault=_violation(violation.line, violation.text))
        return ReadRequest(operation, request, impersonation, version)

    def describe(self, request: ReadRequest, account: Account, nth: int = 1) -> Call:
        """Return a request as fault rules see it."""
        mailbox = request.impersonated or account.address
        folders: list[str] = []
        caller = Caller(self.exchange, account, mailbox, is_impersonating=request.impersonated is not None)
        for name in ("ParentFolderIds", "FolderIds", "SyncFolderId"):
            part = None if request.body is None else request.body.find(f"{{{MESSAGES_NS}}}{name}")
            for element in () if part is None else part:
                try:
                    folder = caller.folder(element)
                except (EwsError, TypeError):
                    continue
                folders.append(folder.path)
                mailbox = folder.mailbox.address
        items = request.item_ids
        owner = next(filter(None, map(self._owner, reversed(items))), None)
        return Call(request.operation, account.user, owner.address if owner else mailbox, tuple(folders), items, nth)

    def answer(self, request: ReadRequest, account: Account, disturbance: Disturbance | None = None) -> Reply:
        """Answer a request."""
        disturbed = disturbance or Disturbance(Call(request.operation))
        dialect = _dialect(disturbed)
        try:
            caller = self._admit(request, account, disturbed)
        except RequestFault as fault:
            return Reply(500, fault.code, _write_fault(fault, dialect))
        assert request.body is not None  # noqa: S101 - there is one where there is no fault
        out = _start(dialect)
        out.raw(f"<{_prefixed(dialect.messages, request.operation)}Response{_namespaces(dialect)}>")
        out.start("m:ResponseMessages")
        self._operations.known[request.operation](
            Request(request.body, caller, request.version, disturbed),
            out,
        )
        out.end()
        out.raw(f"</{_prefixed(dialect.messages, request.operation)}Response>")
        _finish(out)
        return Reply(200, None, out)

    def _owner(self, item_id: str) -> Mailbox | None:
        try:
            return self.exchange.mailbox_of(ids.parse(item_id))
        except ids.MalformedIdError:
            return None

    def _admit(self, request: ReadRequest, account: Account, disturbed: Disturbance) -> Caller:
        if request.fault is not None:
            raise request.fault
        wanted = disturbed.find(SoapFault)
        if wanted is not None:
            raise RequestFault(wanted.code, wanted.text, back_off_ms=wanted.back_off_ms)
        return identify(self.exchange, account, request.impersonation)

    def _read_header(self, header: etree._Element | None) -> tuple[str, etree._Element | None]:
        version, impersonation = "Exchange2007_SP1", None
        for element in () if header is None else header:
            if element.tag == _VERSION:
                version = str(element.get("Version"))
                if version not in vocabulary.VERSIONS.split():
                    raise RequestFault("ErrorInvalidServerVersion", "The specified server version is invalid.")
            elif element.tag == _IMPERSONATION:
                self._grammar.check(element, "ExchangeImpersonation")
                impersonation = element
            elif element.get(f"{{{SOAP_NS}}}mustUnderstand") == "1" and not str(element.tag).startswith(
                f"{{{TYPES_NS}}}"
            ):
                raise RequestFault("ErrorInvalidRequest", f"The header {local(element)} is not understood.")
        return version, impersonation

    def _check(self, request: etree._Element, operation: str) -> None:
        if request.tag != f"{{{MESSAGES_NS}}}{operation}" or operation not in vocabulary.OPERATIONS.split():
            raise Violation(line_of(request), f"The element '{operation}' is not declared.")
        if operation not in self._operations.known:
            raise RequestFault("ErrorInvalidOperation", f"{operation} is not there.")
        self._grammar.check(request, operation)


def _dialect(disturbed: Disturbance) -> Dialect:
    prefixes = disturbed.find(Prefixes)
    illegal = disturbed.find(IllegalCharacters)
    references = illegal.references if illegal else ""
    if prefixes is None:
        return Dialect(illegal=references)
    return Dialect(prefixes.soap, prefixes.messages, prefixes.types, references)


def _violation(line: int, text: str) -> RequestFault:
    details = (("LineNumber", str(line)), ("LinePosition", "1"), ("Violation", text))
    return RequestFault("ErrorSchemaValidation", f"{_VIOLATES}: {text}", details=details)


def _write_fault(fault: RequestFault, dialect: Dialect) -> XmlWriter:
    out = _start(dialect, with_version=False)
    out.start("s:Fault")
    out.raw(f'<faultcode xmlns:a="{TYPES_NS}">a:{escape(fault.code)}</faultcode>')
    out.raw(f'<faultstring xml:lang="en-US">{escape(fault.text)}</faultstring><detail>')
    out.raw(f'<e:ResponseCode xmlns:e="{ERRORS_NS}">{escape(fault.code)}</e:ResponseCode>')
    out.raw(f'<e:Message xmlns:e="{ERRORS_NS}">{escape(fault.text)}</e:Message>')
    values = [f"<t:{name}>{escape(value)}</t:{name}>" for name, value in fault.details]
    if fault.back_off_ms is not None:
        values.append(f'<t:Value Name="BackOffMilliseconds">{fault.back_off_ms}</t:Value>')
    if values:
        out.raw(f'<t:MessageXml xmlns:t="{TYPES_NS}">{"".join(values)}</t:MessageXml>')
    out.raw("</detail>")
    out.end()
    _finish(out)
    return out


def _start(dialect: Dialect, *, with_version: bool = True) -> XmlWriter:
    out = XmlWriter(dialect)
    out.raw('<?xml version="1.0" encoding="utf-8"?>')
    declaration = f"xmlns:{dialect.soap}" if dialect.soap else "xmlns"
    out.raw(f'<{_prefixed(dialect.soap, "Envelope")} {declaration}="{SOAP_NS}">')
    if with_version:
        values = "".join(f' {name}="{value}"' for name, value in _SERVER_VERSION)
        out.start("s:Header")
        out.raw(f'<h:ServerVersionInfo{values} xmlns:h="{TYPES_NS}"/>')
        out.end()
    out.start("s:Body")
    return out


def _finish(out: XmlWriter) -> None:
    out.end()
    out.raw(f"</{_prefixed(out.dialect.soap, 'Envelope')}>")


def _prefixed(prefix: str, name: str) -> str:
    return f"{prefix}:{name}" if prefix else name


def _namespaces(dialect: Dialect) -> str:
    pairs = ((dialect.messages, MESSAGES_NS), (dialect.types, TYPES_NS))
    return "".join(f' xmlns{":" + prefix if prefix else ""}="{namespace}"' for prefix, namespace in pairs)
