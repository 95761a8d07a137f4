"""What identity providers answer, and what it asks for: words as Entra writes them."""

from __future__ import annotations

import pytest

from ews_sync.errors import Asks, AuthenticationError, ConnectionFailedError, Scope
from ews_sync.sources.auth.oauth2_refusals import ADVICE, Refusal, advice_for, refusal_error, refusal_of
from ews_sync.sources.auth.oauth2_tokens import scope_for

CORRELATION = "aaaa0000-bb11-2222-33cc-444444dddddd"


def entra(error: str, code: int, text: str) -> dict[str, object]:
    """An answer in the form that Microsoft documents."""
    return {
        "error": error,
        "error_description": f"AADSTS{code}: {text}\r\nTrace ID: 0000aaaa-11bb-cccc-dd22-eeeeee333333\r\n"
        f"Correlation ID: {CORRELATION}\r\nTimestamp: 2016-01-09 02:02:12Z",
        "error_codes": [code],
        "timestamp": "2016-01-09 02:02:12Z",
        "trace_id": "0000aaaa-11bb-cccc-dd22-eeeeee333333",
        "correlation_id": CORRELATION,
    }


def error_for(body: object, *secrets: str, wait: float | None = None) -> AuthenticationError | ConnectionFailedError:
    refusal = refusal_of(body)
    assert refusal is not None
    error = refusal_error(refusal, "login.example.com:443", retry_after=wait, secrets=secrets)
    assert isinstance(error, (AuthenticationError, ConnectionFailedError))
    return error


def test_a_refusal_in_one_line() -> None:
    error = error_for(entra("invalid_client", 7000222, "The provided client secret keys are expired."))
    assert str(error) == (
        "login.example.com:443 does not issue an access token: The provided client secret keys are expired "
        "(AADSTS7000222) - the client secret has expired: create a new one in the app registration (Entra admin "
        "center, App registrations) and put it into auth_oauth_client_secret (or REINFER_EWS_AUTH_OAUTH_CLIENT_SECRET)"
    )
    assert error.request_id == f"{CORRELATION} 2016-01-09 02:02:12Z"
    assert (error.asks, error.scope) == (Asks.STOP, Scope.PROCESS)


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (7000215, "auth_oauth_client_secret"),
        (7000222, "create a new one"),
        (90002, "auth_oauth_authority"),
        (700016, "auth_oauth_client_id"),
        (700027, "upload the certificate"),
        (7000214, "create a new certificate"),
        (53003, "Conditional Access"),
        (7000112, "enable it"),
        (70011, "ews_endpoint"),
        (500011, "Exchange Online"),
        (700024, "clock"),
        (65001, "full_access_as_app"),
    ],
)
def test_codes_that_need_an_operator(code: int, hint: str) -> None:
    error = error_for(entra("whatever", code, "Words."))
    assert isinstance(error, AuthenticationError)
    assert (error.code, error.asks) == (f"AADSTS{code}", Asks.STOP)
    assert hint in error.hint


@pytest.mark.parametrize("code", [90033, 90024, 90055, 50196])
def test_codes_that_pass_by_themselves(code: int) -> None:
    error = error_for(entra("temporarily_unavailable", code, "A transient error."), wait=9)
    assert isinstance(error, ConnectionFailedError)
    assert (error.asks, error.retry_after) == (Asks.RETRY, 9)


def test_every_advice_is_one_line_that_names_the_thing_to_do() -> None:
    for code, advice in ADVICE.items():
        assert "\n" not in advice.hint
        assert (advice.hint == "") is (advice.asks is Asks.RETRY), code
        assert len(advice.hint) < 260, code


def test_an_unknown_code_shows_its_own_words() -> None:
    error = error_for(entra("strange", 99999123, "Something new."))
    assert "Something new" in error.summary
    assert (error.code, error.asks) == ("AADSTS99999123", Asks.STOP)
    assert error.hint


def test_the_code_may_stand_in_the_words_only() -> None:
    error = error_for({"error": "invalid_client", "error_description": "AADSTS7000222: Expired."})
    assert (error.code, error.request_id) == ("AADSTS7000222", "")


def test_a_code_that_is_known_counts_more_than_one_that_is_not() -> None:
    refusal = refusal_of({"error": "x", "error_codes": [99999123, 700016]})
    assert refusal is not None
    assert advice_for(refusal) is ADVICE[700016]
    assert error_for({"error": "x", "error_codes": [99999123, 700016]}).code == "AADSTS700016"


def test_other_identity_providers_have_oauths_own_words() -> None:
    error = error_for({"error": "invalid_client", "error_description": "client authentication failed"})
    assert (error.code, "auth_oauth_client_id" in error.hint) == ("invalid_client", True)
    assert "client authentication failed" in error.summary
    assert error_for({"error": "server_error"}).asks is Asks.RETRY
    assert "server_error" in error_for({"error": "server_error"}).summary


def test_secrets_do_not_show_whatever_is_echoed() -> None:
    error = error_for(
        {"error": "invalid_client", "error_description": "hunter2 and eyJ.x.y are bad"}, "hunter2", "eyJ.x.y"
    )
    assert error.summary.endswith(": *** and *** are bad")


def test_words_from_outside_become_one_line() -> None:
    error = error_for({"error": "a\nb", "error_description": "x\x1b[31m\n" + "y" * 5000})
    assert "\n" not in str(error)
    assert "\x1b" not in str(error)
    assert len(str(error)) < 600


@pytest.mark.parametrize("body", [None, [], "error", {}, {"error": 5}, {"access_token": "x"}])
def test_what_is_no_refusal(body: object) -> None:
    assert refusal_of(body) is None


def test_a_refusal_with_nonsense_in_it() -> None:
    body = {"error": "x", "error_description": 5, "error_codes": "7000222", "correlation_id": [], "timestamp": None}
    assert refusal_of(body) == Refusal("x")


GRAPHLESS = "https://login.microsoftonline.com/contoso.com"


@pytest.mark.parametrize(
    ("endpoint", "authority", "resource"),
    [
        ("https://outlook.office365.com/EWS/Exchange.asmx", GRAPHLESS, "https://outlook.office365.com"),
        ("https://OUTLOOK.office.com/EWS/Exchange.asmx", GRAPHLESS, "https://outlook.office365.com"),
        ("https://outlook.office365.us/EWS/Exchange.asmx", GRAPHLESS, "https://outlook.office365.us"),
        ("https://outlook-dod.office365.us/EWS/Exchange.asmx", GRAPHLESS, "https://outlook-dod.office365.us"),
        ("https://webmail.apps.mil/EWS/Exchange.asmx", GRAPHLESS, "https://outlook-dod.office365.us"),
        ("https://partner.outlook.cn/EWS/Exchange.asmx", GRAPHLESS, "https://partner.outlook.cn"),
        ("https://proxy.example.com/EWS/Exchange.asmx", GRAPHLESS, "https://outlook.office365.com"),
        ("https://notoffice365.us.example.com/x", GRAPHLESS, "https://outlook.office365.com"),
        ("https://127.0.0.1:8443/x", "https://login.microsoftonline.us/t", "https://outlook.office365.us"),
        ("https://127.0.0.1:8443/x", "https://login.partner.microsoftonline.cn/t", "https://partner.outlook.cn"),
        ("https://127.0.0.1:8443/x", "https://127.0.0.1:9443/t", "https://outlook.office365.com"),
    ],
)
def test_the_scope_is_that_of_the_cloud(endpoint: str, authority: str, resource: str) -> None:
    assert scope_for(endpoint, authority) == f"{resource}/.default"
