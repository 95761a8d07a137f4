from __future__ import annotations

import pytest

from ews_sync.web.challenges import Challenge, challenges, of_scheme
from ews_sync.web.offers import not_offered


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([""], []),
        (["Negotiate", "NTLM"], [("Negotiate", ""), ("NTLM", "")]),
        (["Negotiate, NTLM"], [("Negotiate", ""), ("NTLM", "")]),
        (['Basic realm="a, NTLM b"', "ntlm TlRMTVNTUAAC=="], [("Basic", ""), ("ntlm", "TlRMTVNTUAAC==")]),
        (['Digest qop = "auth", nonce=abc, NTLM'], [("Digest", ""), ("NTLM", "")]),
        (['Bearer client_id="x", trusted_issuers="a,b"'], [("Bearer", "")]),
        (["Negotiate oYIB+/=="], [("Negotiate", "oYIB+/==")]),
        ([r'Basic realm="a \" , NTLM"'], [("Basic", "")]),
    ],
)
def test_what_a_server_asks_for(values: list[str], expected: list[tuple[str, str]]) -> None:
    assert [(challenge.scheme, challenge.token) for challenge in challenges(values)] == expected


def test_schemes_are_found_in_any_case() -> None:
    found = challenges(["ntlm x"])
    assert of_scheme(found, "NTLM") == Challenge("ntlm", "x")
    assert of_scheme(found, "Negotiate") is None


@pytest.mark.parametrize(
    ("offered", "summary", "hint"),
    [
        (["Basic"], "it offers Basic", 'set auth_type to "basic", or'),
        (["Bearer", "Negotiate"], "it offers Bearer and Negotiate", 'set auth_type to "ntlm", "kerberos" or "oauth2"'),
        (["Digest"], "it offers Digest", "have NTLM switched on"),
        ([], "it names no way to log in", "have NTLM switched on"),
    ],
)
def test_what_to_do_when_the_way_to_log_in_is_not_offered(offered: list[str], summary: str, hint: str) -> None:
    error = not_offered("NTLM", [Challenge(scheme) for scheme in offered])
    assert error.summary == f"the Exchange server does not offer NTLM; {summary}"
    assert hint in error.hint
