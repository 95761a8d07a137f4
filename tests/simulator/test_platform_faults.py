"""What goes wrong at the platform is data, can be changed while it runs, and does just what it says."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import httpx
import pytest

from ews_sync.simulator.faults import (
    ConnectionReset,
    Effect,
    FaultPlan,
    Hang,
    HttpError,
    Latency,
    Truncated,
    html_page,
)
from ews_sync.simulator.platform.access import Token
from ews_sync.simulator.platform.faults import (
    AnswerLost,
    ContradictingStatus,
    CursorForgotten,
    CursorRefused,
    RefusedEmail,
    RequestTooLarge,
    api_error,
    quota_exceeded,
)
from ews_sync.simulator.platform.server import PlatformServer
from tests.simulator.platform_api import EMAILS, Api, message, new_email, state

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.mark.parametrize(
    ("effect", "status", "says"),
    [
        (api_error(500), 500, "something went wrong"),
        (api_error(503, "busy", retry_after="7"), 503, "busy"),
        (api_error(429, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"), 429, "something went wrong"),
        (api_error(401, "no"), 401, "no"),
        (quota_exceeded(), 402, "the quota of emails is used up"),
    ],
)
async def test_the_apis_own_errors(api: Api, effect: HttpError, status: int, says: str) -> None:
    api.server.faults.add(effect, operation="put_emails", times=1)
    response = await api.put(new_email())
    assert (response.status_code, message(response)) == (status, says)
    assert response.headers.get("Retry-After") == effect.retry_after
    assert api.store.count("owner", "name") == 0
    assert (await api.put(new_email())).status_code == 200
    assert [(record.status, record.effects) for record in api.server.log] == [(status, ("HttpError",)), (200, ())]


@pytest.mark.parametrize("status", [200, 502])
async def test_a_page_instead_of_an_answer(api: Api, status: int) -> None:
    api.server.faults.add(html_page(status))
    response = await api.put(new_email())
    assert response.status_code == status
    assert response.headers["Content-Type"] == "text/html"
    with pytest.raises(json.JSONDecodeError):
        response.json()
    assert api.store.count("owner", "name") == 0


@pytest.mark.parametrize("as_page", [True, False])
async def test_requests_that_are_too_large(api: Api, *, as_page: bool) -> None:
    small = await api.put(new_email(1))
    api.server.faults.add(RequestTooLarge(len(small.request.content), as_page=as_page))
    assert (await api.put(new_email(2))).status_code == 200
    response = await api.put(new_email(3), new_email(4))
    assert response.status_code == 413
    assert as_page or message(response).startswith("a request can have ")
    assert as_page == (response.headers["Content-Type"] == "text/html")
    assert api.store.count("owner", "name") == 2
    assert api.server.log[-1].email_ids == ("<3@example.com>", "<4@example.com>")


async def test_emails_that_are_refused_refuse_their_request(api: Api) -> None:
    faults = api.server.faults
    faults.add(RefusedEmail(frozenset({"<2@example.com>"})))
    faults.add(RefusedEmail(where=lambda email: email["metadata"]["folder"] == ["Junk"], status=400, message="junk"))
    response = await api.put(new_email(1), new_email(2))
    assert (response.status_code, message(response)) == (422, 'this email cannot be stored (id "<2@example.com>")')
    response = await api.put(new_email(3), new_email(4, metadata={"folder": ["Junk"]}))
    assert (response.status_code, message(response)) == (400, 'junk (id "<4@example.com>")')
    assert api.store.count("owner", "name") == 0
    for number in (1, 3):
        assert (await api.put(new_email(number))).status_code == 200
    assert len(faults.rules) == 2
    assert [record.effects for record in api.server.log.of("put_emails")] == [("RefusedEmail",)] * 2 + [()] * 2


async def test_times_counts_only_the_requests_that_an_effect_is_for(api: Api) -> None:
    api.server.faults.add(RefusedEmail(frozenset({"<2@example.com>"})), times=1)
    statuses = [(await api.put(new_email(number))).status_code for number in (1, 2, 2)]
    assert statuses == [200, 422, 200]


async def test_a_cursor_that_is_refused(api: Api) -> None:
    api.server.faults.add(CursorRefused())
    response = await api.put_state(state())
    assert (response.status_code, message(response)) == (400, "keyed_sync_state.cursor: unknown field")
    assert api.store.keyed_sync_states("owner", "name") == []
    without = {name: value for name, value in state().items() if name != "cursor"}
    assert (await api.put_state(without)).status_code == 200
    assert api.store.keyed_sync_states("owner", "name") == [without]


async def test_a_cursor_that_is_forgotten(api: Api) -> None:
    rule = api.server.faults.add(CursorForgotten())
    assert (await api.put_state(state())).json() == {"status": "ok"}
    assert "cursor" not in api.store.keyed_sync_states("owner", "name")[0]
    api.server.faults.remove(rule)
    await api.put_state(state())
    assert api.store.keyed_sync_states("owner", "name") == [state()]


@pytest.mark.parametrize(
    ("effect", "is_stored"),
    [
        (AnswerLost(), True),
        (ConnectionReset(), False),
        (ConnectionReset(after=5), True),
        (Truncated(keep=0.5, honest=False), True),
    ],
)
async def test_connections_that_break(api: Api, effect: Effect, is_stored: bool) -> None:  # noqa: FBT001
    api.server.faults.add(effect, times=1)
    with pytest.raises(httpx.TransportError):
        await api.put(new_email())
    assert api.store.count("owner", "name") == is_stored
    assert api.server.log[0].effects == (type(effect).__name__,)
    assert (await api.put(new_email())).status_code == 200
    assert api.store.count("owner", "name") == 1


async def test_an_answer_that_is_cut_in_a_proxy(api: Api) -> None:
    api.server.faults.add(Truncated(keep=0.5), operation="get_bucket")
    response = await api.call("GET", "_private/buckets/owner/name")
    assert response.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        response.json()


@pytest.mark.parametrize(
    ("effect", "is_stored"),
    [
        (ContradictingStatus(200, "error"), False),
        (ContradictingStatus(500, "ok"), False),
        (ContradictingStatus(500, "ok", is_applied=True), True),
        (ContradictingStatus(200, "error", is_applied=True), True),
    ],
)
async def test_a_status_that_contradicts_itself(api: Api, effect: ContradictingStatus, is_stored: bool) -> None:  # noqa: FBT001
    api.server.faults.add(effect)
    response = await api.put(new_email())
    assert (response.status_code, response.json()["status"]) == (effect.http_status, effect.status)
    assert api.store.count("owner", "name") == is_stored


async def test_latency_waits_with_what_it_is_given(api: Api) -> None:
    waited = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    plan = FaultPlan()
    plan.add(Latency(0.02), operation="put_emails")
    async with PlatformServer(api.store, [Token("secret")], plan, sleep=sleep) as server:
        slow = Api(server, api.client)
        await slow.put(new_email())
        await slow.call("GET", "_private/buckets")
    assert waited == [0.02]


async def test_a_hanging_request_lets_the_others_through_and_the_server_stop(api: Api) -> None:
    api.server.faults.add(Hang(), times=1)
    hanging = asyncio.create_task(api.put(new_email(1)))
    await api.server.log.until(lambda: api.server.log.in_flight["put_emails"] == 1)
    assert (await api.put(new_email(2))).status_code == 200
    assert api.server.log.most_in_flight["put_emails"] == 2
    await api.server.stop()
    with pytest.raises(httpx.TransportError):
        await hanging
    assert api.store.emails("owner", "name") == [new_email(2)]


async def test_rules_match_bucket_mailbox_id_and_count(api: Api) -> None:
    api.store.create_bucket("owner", "other")
    other = "_private/buckets/owner/other/emails"
    faults = api.server.faults
    faults.add(api_error(499), bucket="owner/nothing")
    faults.add(api_error(500), bucket="owner/other", nth=1)
    faults.add(api_error(501), mailbox="B@example.com")
    faults.add(api_error(502), item="<7@example.com>")
    sent: Sequence[tuple[str, list[dict[str, object]]]] = [
        (other, [new_email(1)]),
        (other, [new_email(1)]),
        (EMAILS, [new_email(1), new_email(1, "b@example.com")]),
        (EMAILS, [new_email(1), new_email(7)]),
        (EMAILS, [new_email(1)]),
    ]
    statuses = [(await api.put(*emails, path=path)).status_code for path, emails in sent]
    assert statuses == [500, 200, 501, 502, 200]


async def test_the_same_seed_fails_the_same_requests(api: Api) -> None:
    async def statuses(seed: int) -> list[int]:
        plan = FaultPlan(seed)
        plan.add(api_error(500), probability=0.3)
        async with PlatformServer(api.store, [Token("secret")], plan) as server:
            seeded = Api(server, api.client)
            return [(await seeded.put(new_email(number))).status_code for number in range(30)]

    first = await statuses(1)
    assert set(first) == {200, 500}
    assert await statuses(1) == first
    assert await statuses(2) != first


async def test_what_is_wrong_of_itself_stays_wrong(api: Api) -> None:
    """A request that cannot be read is disturbed like any other, and refused for what it is otherwise."""
    api.server.faults.add(api_error(503), times=1)
    api.server.faults.add(RefusedEmail(where=lambda _: True))
    statuses = [(await api.put({"id": "x"})).status_code for _ in range(2)]
    assert statuses == [503, 400]
