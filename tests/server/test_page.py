"""The page at `/`, in a real browser."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import async_playwright, expect

from ews_sync.clock import SystemClock
from ews_sync.errors import Asks, SourceError
from ews_sync.model import Bucket, DeadLetter, Mailbox
from ews_sync.server.http import StatusServer
from ews_sync.settings.values import Bind
from ews_sync.telemetry.status import Failure, FolderProgress, MailboxProgress, Phase, Rate, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    # One browser for all of them: starting it takes longer than the tests do.
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("browser"),
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]

HOSTILE = '<img src=x onerror="document.title=1"> & "quotes"'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def server() -> AsyncIterator[StatusServer]:
    now = datetime.now(UTC)
    status = Status("1.2.3", now - timedelta(hours=5), config_source="config file /etc/ews.json", sink="/var/mail")
    server = StatusServer(Bind("127.0.0.1", 0), status, SystemClock())
    for number in range(3):
        mailbox = MailboxProgress(f"box{number}@bank.example", "bank/claims", phase=Phase.FOLLOWING, stored=1200)
        mailbox.source_answered = mailbox.sink_ready = True
        mailbox.newest_received = now - timedelta(minutes=3)
        mailbox.last_success_at = now - timedelta(seconds=10)
        mailbox.folders["1"] = FolderProgress(("Inbox",), phase=Phase.FOLLOWING, done=400, total=400, stored=1100)
        status.mailboxes[mailbox.address] = mailbox
    await server.start()
    yield server
    await server.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, server: StatusServer) -> AsyncIterator[Page]:
    async for page in opened(browser, server):
        yield page


async def opened(browser: Browser, server: StatusServer, **options: object) -> AsyncIterator[Page]:
    """Give the page, and look at the end that it asked nobody else and that no script has failed."""
    context = await browser.new_context(**options)  # type: ignore[arg-type]
    page = await context.new_page()
    wrong: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if "Content Security" in message.text else None)
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(f"http://{server.address}/")
    yield page
    await picture(page, os.environ.get("PYTEST_CURRENT_TEST", "page").rpartition("::")[2].partition(" ")[0])
    await context.close()
    assert wrong == []
    assert all(url.startswith((f"http://{server.address}/", "data:")) for url in asked)


async def picture(page: Page, name: str) -> None:
    """Keep a screenshot where EWS_SYNC_SCREENSHOTS says, for whoever wants to look."""
    directory = os.environ.get("EWS_SYNC_SCREENSHOTS")
    if directory:
        await page.screenshot(path=Path(directory) / f"{name}.png", full_page=True)


def failure(what: str, hint: str = "", code: str = "") -> Failure:
    error = SourceError(what, asks=Asks.RETRY, hint=hint, code=code)
    return Failure.of(error, datetime.now(UTC) - timedelta(minutes=7))


def backfilling(mailbox: MailboxProgress) -> None:
    mailbox.phase = Phase.BACKFILLING
    folder = mailbox.folders["1"]
    folder.phase, folder.done, folder.total = Phase.BACKFILLING, 100, 400
    mailbox.rate.add(SystemClock().monotonic(), 100)
    folder.rate = Rate()
    folder.rate.add(SystemClock().monotonic(), 100)


async def test_when_all_is_well(page: Page) -> None:
    await expect(page.locator("#state")).to_have_text("All is well: following what is new")
    await expect(page.locator("#wrong")).to_be_hidden()
    await expect(page.locator("#rows > tr")).to_have_count(3)
    await expect(page.get_by_text("version 1.2.3")).to_be_visible()


async def test_while_it_catches_up(server: StatusServer, page: Page) -> None:
    backfilling(server._status.mailboxes["box1@bank.example"])
    await expect(page.locator("#state")).to_have_text("Catching up: 1 of 3 mailboxes")
    # What is not finished comes first.
    first = page.locator("#rows > tr").first
    await expect(first).to_contain_text("box1@bank.example")
    await expect(first).to_contain_text("100 of 400 (25 %)")
    await expect(first.get_by_role("progressbar")).to_have_attribute("value", "100")
    server._status.mailboxes["box1@bank.example"].folders["1"].done = 200
    await expect(first).to_contain_text("200 of 400 (50 %)")


async def test_while_the_server_asks_to_wait(server: StatusServer, page: Page) -> None:
    now = SystemClock().monotonic()
    server._status.traffic.throttled("box2@bank.example", now, now + 300)
    await expect(page.locator("#state")).to_contain_text("the server asks 1 of 3 mailboxes to wait")
    await expect(page.locator("#rows")).to_contain_text("throttled for 4 min")


async def test_a_mailbox_that_fails(server: StatusServer, page: Page) -> None:
    mailbox = server._status.mailboxes["box1@bank.example"]
    mailbox.phase = Phase.FAILED
    mailbox.failure = failure("the server says no", "grant the role", "ErrorAccessDenied")
    await expect(page.locator("#state")).to_have_text("1 of 3 mailboxes failed")
    problem = page.locator("#problems li")
    await expect(problem).to_contain_text("box1@bank.example")
    await expect(problem).to_contain_text("→ grant the role")
    await expect(problem).to_contain_text("for 7 min · ErrorAccessDenied")
    await expect(page.locator("#rows > tr").first).to_contain_text("failed")
    mailbox.failure, mailbox.phase = None, Phase.FOLLOWING
    await expect(page.locator("#wrong")).to_be_hidden()


async def test_many_troubles_are_grouped_and_what_is_left_out_is_said(server: StatusServer, page: Page) -> None:
    for number in range(60):
        mailbox = MailboxProgress(f"n{number}", "bank/claims", phase=Phase.FOLLOWING)
        mailbox.folders["1"] = FolderProgress(("Inbox",), failure=failure("the same for all of these"))
        mailbox.folders["2"] = FolderProgress(("Other",), failure=failure(f"trouble {number}"))
        server._status.mailboxes[mailbox.address] = mailbox
    await expect(page.locator("#problems")).to_contain_text("n0: Inbox and 59 more")
    await expect(page.locator("#problems li")).to_have_count(21)
    await expect(page.locator("#problems li").last).to_contain_text("and 41 more")


async def test_what_is_selected_stays_so_that_it_can_be_copied(server: StatusServer, page: Page) -> None:
    server._status.warn("something to copy")
    await expect(page.locator("#problems")).to_contain_text("something to copy")
    await page.locator("#problems li").select_text()
    async with page.expect_response(lambda response: "folders=failing" in response.url):
        pass
    async with page.expect_response(lambda response: "folders=failing" in response.url):
        pass
    assert "something to copy" in await page.evaluate("getSelection().toString()")


async def test_when_exchange_is_away(server: StatusServer, page: Page) -> None:
    away = failure("cannot connect to https://mail.bank.example", "look at the network")
    server._status.source_failure = away
    for mailbox in server._status.mailboxes.values():
        mailbox.failure, mailbox.phase = away, Phase.FAILED
    await expect(page.locator("#state")).to_have_text("The Exchange server is away")
    # One trouble, and not one for each mailbox.
    await expect(page.locator("#problems li")).to_have_count(1)
    await expect(page.locator("#problems")).to_contain_text("→ look at the network")


async def test_when_nobody_answers_any_more(server: StatusServer, page: Page) -> None:
    await expect(page.locator("#state")).to_have_text("All is well: following what is new")
    await page.clock.install()
    await server.aclose()
    await page.clock.run_for(30_000)
    await expect(page.locator("#state")).to_contain_text("No answer for")


async def test_names_from_outside_are_text(server: StatusServer, page: Page) -> None:
    status = server._status
    mailbox = status.mailboxes["box0@bank.example"]
    mailbox.folders["2"] = FolderProgress((HOSTILE,), failure=failure(HOSTILE, HOSTILE))
    letter = DeadLetter(Mailbox("box0@bank.example", Bucket("bank", "claims")), "id", (HOSTILE,), HOSTILE, HOSTILE)
    status.note_dead_letter(letter, datetime.now(UTC))
    status.warn(HOSTILE)
    await expect(page.locator("#state")).to_have_text("A folder failed")
    await expect(page.locator("#problems li")).to_have_count(2)
    await expect(page.locator("#problems li").first).to_contain_text(HOSTILE)
    await page.locator("#dead summary").click()
    await expect(page.locator("#letters")).to_contain_text(HOSTILE)
    await page.get_by_role("button", name="box0@bank.example").click()
    await expect(page.locator(".folders")).to_contain_text(HOSTILE)
    assert await page.locator("img").count() == 0


async def test_the_folders_of_a_mailbox_by_keyboard(server: StatusServer, page: Page) -> None:
    del server
    await expect(page.locator("#rows > tr")).to_have_count(3)
    await page.locator("#filter").focus()
    await page.keyboard.press("Tab")
    button = page.get_by_role("button", name="box0@bank.example")
    await expect(button).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator(".folders")).to_contain_text("Inbox")
    await expect(button).to_have_attribute("aria-expanded", "true")
    # It stays where it was when the page is drawn anew.
    async with page.expect_response(lambda response: "folders=failing" in response.url):
        pass
    await expect(button).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator(".folders")).to_have_count(0)


async def test_a_filter_and_a_thousand_mailboxes(server: StatusServer, page: Page) -> None:
    for number in range(3, 1000):
        server._status.mailboxes[f"n{number}"] = MailboxProgress(f"n{number}", "bank/claims", phase=Phase.FOLLOWING)
    await expect(page.locator("#more")).to_have_text("900 more: type to filter.")
    await expect(page.locator("#rows > tr")).to_have_count(100)
    await page.locator("#filter").fill("n99")
    await expect(page.locator("#rows > tr")).to_have_count(11)
    await page.locator("#filter").fill("nobody")
    await expect(page.locator("#more")).to_have_text("No mailbox is like that.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_on_a_small_screen_and_in_the_dark(browser: Browser, server: StatusServer, scheme: str) -> None:
    mailbox = server._status.mailboxes["box1@bank.example"]
    mailbox.failure, mailbox.phase = failure("x" * 300, "grant the role"), Phase.FAILED
    backfilling(server._status.mailboxes["box2@bank.example"])
    async for page in opened(browser, server, viewport={"width": 400, "height": 800}, color_scheme=scheme):
        await expect(page.locator("#rows > tr")).to_have_count(3)
        await page.get_by_role("button", name="box2@bank.example").click()
        await expect(page.locator(".folders")).to_contain_text("Inbox")
        wide = await page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 400, "it has to be scrolled sideways"
        assert await page.evaluate(CONTRAST) == []


CONTRAST = """() => {
  const bright = (color) => {
    const [r, g, b] = color.match(/[0-9.]+/g).slice(0, 3).map(Number)
      .map((value) => value / 255).map((value) => value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (color !== "rgba(0, 0, 0, 0)") return color;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility()) continue;
    const [light, dark] = [bright(getComputedStyle(element).color), bright(behind(element))].sort((a, b) => b - a);
    const contrast = (light + .05) / (dark + .05);
    if (contrast < 4.5) poor.push(`${element.tagName} ${element.className} ${contrast.toFixed(2)}`);
  }
  return poor;
}"""
"""Gives the elements whose text stands out from what is behind it by less than 4.5 : 1 (WCAG 2.2, 1.4.3)."""


async def test_its_parts_have_names_for_those_who_do_not_see_them(page: Page) -> None:
    await expect(page.locator("#rows > tr")).to_have_count(3)
    nameless = await page.evaluate(
        """() => [...document.querySelectorAll("button, input, progress, svg, section, table th")]
            .filter((one) => !(one.textContent.trim() || one.ariaLabel || one.labels?.length
                || one.getAttribute("aria-labelledby")))
            .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    assert await page.locator("html").get_attribute("lang") == "en"
    assert await page.locator("h1").count() == 1
    await expect(page.get_by_role("status")).to_have_attribute("aria-live", "polite")


async def test_curl_gets_the_table_and_a_browser_the_page(server: StatusServer) -> None:
    async with httpx.AsyncClient(base_url=f"http://{server.address}", trust_env=False) as client:
        assert "MAILBOX" in (await client.get("/")).text
        page = await client.get("/", headers={"Accept": "text/html,application/xhtml+xml"})
    assert page.text.startswith("<!doctype html>")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http://" not in page.text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page.text
