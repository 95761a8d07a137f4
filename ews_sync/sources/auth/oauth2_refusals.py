"""What an identity provider's refusals ask for: RFC 6749 section 5.2, and Entra's codes as data. Pure.

The codes are those of "Microsoft Entra authentication and authorization error codes" (learn.microsoft.com). One that is
not in the table is kept verbatim, with Entra's own words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ews_sync.errors import Asks, AuthenticationError, ConnectionFailedError, SourceError
from ews_sync.web.failures import one_line

_CODE = re.compile(r"AADSTS(\d{4,9})")
_TOO_LARGE = 10**9
_HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class Refusal:
    """What an identity provider said: OAuth's `error`, and what Entra adds to it; "" and () where nothing was said."""

    error: str
    description: str = ""
    codes: tuple[int, ...] = ()
    correlation_id: str = ""
    timestamp: str = ""

    @property
    def request_id(self) -> str:
        """What an administrator finds the request by in the sign-in logs: the correlation id, and when it was."""
        return " ".join(part for part in (self.correlation_id, self.timestamp) if part)


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do about a refusal."""

    hint: str
    asks: Asks = Asks.STOP


_REGISTRATION = "the app registration (Entra admin center, App registrations)"
_SECRET = "auth_oauth_client_secret (or REINFER_EWS_AUTH_OAUTH_CLIENT_SECRET)"  # noqa: S105 - where it belongs
_KEY = "auth_oauth_client_credential_private_key"
_CERTIFICATE = "auth_oauth_client_credential_thumbprint or _certificate"

_TENANT = Advice(
    "check the tenant's id or domain in auth_oauth_authority, and that the address is that of the tenant's cloud"
)
_CLIENT = Advice(
    "check auth_oauth_client_id, and that auth_oauth_authority names the tenant in which that application is registered"
)
_WRONG_SECRET = Advice(
    f"put the Value of a client secret of {_REGISTRATION}, not its Secret ID, into {_SECRET}; a lost one cannot be "
    "shown again: create a new one"
)
_NO_CREDENTIAL = Advice(f"give {_SECRET}, or {_KEY} with {_CERTIFICATE}")
_WRONG_CERTIFICATE = Advice(
    f"upload the certificate that {_KEY} belongs to in {_REGISTRATION}, Certificates & secrets; if it has expired, "
    "create a new one"
)
_OLD_CERTIFICATE = Advice(
    f"create a new certificate, upload it to {_REGISTRATION}, and put it and its private key into {_KEY} and "
    f"{_CERTIFICATE}"
)
_CLOCK = Advice("set this machine's clock: the signed request was not valid at the time that Entra has")
_POLICY = Advice(
    "a Conditional Access policy blocks the application: let the tenant's administrator exclude it, or allow this "
    "machine's network address; the sign-in logs of service principals name the policy"
)
_CONSENT = Advice(
    "an administrator of the tenant must grant admin consent to the application permission full_access_as_app (Office "
    f"365 Exchange Online) in {_REGISTRATION}, API permissions"
)
_NO_EXCHANGE = Advice(
    "Exchange Online is not known in this tenant, or is switched off there: check that auth_oauth_authority names the "
    "tenant that has the mailboxes, its cloud, and that it has a licence for Exchange Online"
)
_SCOPE = Advice(
    "the token is asked for Exchange Online of the cloud that ews_endpoint names: check ews_endpoint and "
    "auth_oauth_authority"
)
_ASSIGNMENT = Advice(
    "the tenant wants the application assigned first: switch off Assignment required for it, or assign it"
)
_LATER = Advice("", Asks.RETRY)

ADVICE: dict[int, Advice] = {
    # the tenant
    90002: _TENANT,
    900021: _TENANT,
    900023: _TENANT,
    50059: _TENANT,
    50128: _TENANT,
    90019: _TENANT,
    900382: _TENANT,
    900432: _TENANT,
    # the application
    700016: _CLIENT,
    7000229: Advice(
        "the application is not there in this tenant: let the tenant's administrator consent to it, and check "
        "auth_oauth_authority and auth_oauth_client_id"
    ),
    90013: _CLIENT,
    50194: _CLIENT,
    70001: _CLIENT,
    7000112: Advice("the application is disabled: let the tenant's administrator enable it (Enterprise applications)"),
    700025: Advice(
        "the application is registered as a public client: register it as a confidential one (Authentication, Allow "
        "public client flows: No)"
    ),
    # the client secret
    7000215: _WRONG_SECRET,
    70002: _WRONG_SECRET,
    7000222: Advice(f"the client secret has expired: create a new one in {_REGISTRATION} and put it into {_SECRET}"),
    7000216: _NO_CREDENTIAL,
    7000218: _NO_CREDENTIAL,
    # the certificate
    700027: _WRONG_CERTIFICATE,
    50012: _WRONG_CERTIFICATE,
    50013: _WRONG_CERTIFICATE,
    50027: _WRONG_CERTIFICATE,
    5002730: _WRONG_CERTIFICATE,
    700021: _CLIENT,
    700023: _TENANT,
    7000214: _OLD_CERTIFICATE,
    7000274: _OLD_CERTIFICATE,
    7000277: _OLD_CERTIFICATE,
    1000502: _OLD_CERTIFICATE,
    # the clock
    700024: _CLOCK,
    500133: _CLOCK,
    # what the tenant allows
    53003: _POLICY,
    530032: _POLICY,
    530034: _POLICY,
    530035: _POLICY,
    65001: _CONSENT,
    650056: _CONSENT,
    90094: _CONSENT,
    90099: _CONSENT,
    50105: _ASSIGNMENT,
    501051: _ASSIGNMENT,
    # what the token is for
    70011: _SCOPE,
    1002012: _SCOPE,
    50001: _NO_EXCHANGE,
    500011: _NO_EXCHANGE,
    500014: _NO_EXCHANGE,
    650052: _NO_EXCHANGE,
    # Entra is unwell, or busy
    50196: _LATER,
    90006: _LATER,
    90024: _LATER,
    90025: _LATER,
    90033: _LATER,
    90055: _LATER,
}

_BY_ERROR: dict[str, Advice] = {
    "invalid_client": Advice(f"check auth_oauth_client_id, and {_SECRET} or {_KEY}"),
    "unauthorized_client": _CLIENT,
    "invalid_scope": _SCOPE,
    "invalid_target": _SCOPE,
    "invalid_resource": _NO_EXCHANGE,
    "invalid_tenant": _TENANT,
    "access_denied": _CONSENT,
    "temporarily_unavailable": _LATER,
    "server_error": _LATER,
    "slow_down": _LATER,
}
"""For identity providers that are not Entra, and for codes that are not in the table."""


def refusal_of(body: object) -> Refusal | None:
    """Read an answer's JSON; None when it is none of OAuth's errors."""
    if not isinstance(body, dict) or not isinstance(body.get("error"), str):
        return None
    description = _text(body.get("error_description"))
    given = body.get("error_codes")
    codes = tuple(filter(_is_code, given)) if isinstance(given, list) else ()
    return Refusal(
        _text(body["error"]),
        description,
        codes or tuple(int(code) for code in _CODE.findall(description)),
        _text(body.get("correlation_id")),
        _text(body.get("timestamp")),
    )


def advice_for(refusal: Refusal) -> Advice:
    """Find what to do: by Entra's code, else by OAuth's error. What is unknown needs an operator."""
    known = next((ADVICE[code] for code in refusal.codes if code in ADVICE), None)
    return known or _BY_ERROR.get(refusal.error, Advice("the identity provider's own words above say what it wants"))


def refusal_error(
    refusal: Refusal, place: str, *, retry_after: float | None = None, secrets: tuple[str, ...] = ()
) -> SourceError:
    """Make the error. `place` is the identity provider's host; `secrets` must not show, whatever it echoes."""
    advice = advice_for(refusal)
    words = _own_words(refusal, secrets)
    code = next((code for code in refusal.codes if code in ADVICE), refusal.codes[0] if refusal.codes else None)
    kind = AuthenticationError if advice.asks is Asks.STOP else ConnectionFailedError
    return kind(
        f"{place} does not issue an access token: {words}",
        code=one_line(refusal.error, 80) if code is None else f"AADSTS{code}",
        hint=advice.hint,
        retry_after=retry_after if advice.asks is Asks.RETRY else None,
        request_id=refusal.request_id,
    )


def _own_words(refusal: Refusal, secrets: tuple[str, ...]) -> str:
    """Give the description without the code, which stands elsewhere, and without the ids behind it."""
    words = re.split(r"\s*\b(?:Trace ID|Correlation ID):", refusal.description, maxsplit=1)[0]
    words = re.sub(r"^AADSTS\d+:\s*", "", words.strip())
    for secret in secrets:
        words = words.replace(secret, _HIDDEN)
    return one_line(words.rstrip(".")) or one_line(refusal.error, 80)


def _is_code(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < _TOO_LARGE


def _text(value: object) -> str:
    return one_line(value, 2000) if isinstance(value, str) else ""
