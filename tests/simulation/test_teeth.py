"""The simulation has teeth: whatever is broken in the engine, some seed sees it."""

from __future__ import annotations

import pytest

from tests.simulation.invariants import ViolatedError
from tests.simulation.mutants import Change, Mutant, MutationError, broken
from tests.simulation.plan import plan_for
from tests.simulation.simulation import Simulation

SEEDS = range(200)
"""So many seeds a mutant may survive at most."""

MUTANTS = [
    Mutant(
        "checkpoint_before_confirmation",
        (Change("ledger", "if step.effect is None or step.outstanding:", "if step.effect is None:"),),
    ),
    Mutant(
        "offset_paging",
        (
            Change(
                "listing",
                "return Query(self._order, self._at or self._since, self._offset)",
                "return Query(self._order, self._since, self.taken)",
            ),
            Change("listing", "if self._offset and self._anchored and digest", "if False and digest"),
            Change("listing", "if self._unsure and (page.last", "if False and (page.last"),
            Change("listing", "if previous is not None and moment is not None and moment < previous:", "if False:"),
        ),
    ),
    Mutant(
        "watermark_only",
        (
            Change(
                "feed",
                "return start is not None and moment is not None and moment < start",
                "return moment is not None and (listed_until or start or moment) > moment",
            ),
            Change(
                "feed", "def _before(ref: ItemRef, start: datetime | None)", "def _before(ref, start, listed_until)"
            ),
            Change("feed", "not _before(ref, start)", "not _before(ref, start, listed_until)"),
        ),
    ),
    Mutant(
        "lost_answer_taken_as_success",
        (
            Change(
                "pipeline",
                "            return error\n        if receipt.failure",
                "            receipt = __import__('ews_sync.model').model.Receipt()\n        if receipt.failure",
            ),
        ),
    ),
    Mutant(
        "rest_of_a_batch_taken_as_stored",
        (Change("pipeline", "        batch.left = receipt.left\n", "        stored, batch.left = batch.left, ()\n"),),
    ),
    Mutant(
        "versions_overtake_each_other",
        (
            Change(
                "pipeline",
                "batch.behind = [event for event in before if event is not None and not event.is_set()]",
                "batch.behind = []",
            ),
        ),
    ),
    Mutant("mark_after_listing", (Change("marking", "Marked(cursor, rest)", "Marked(cursor, None)"),)),
    Mutant(
        "dead_letter_dropped",
        (Change("storing", "await self._parts.sink.dead_letter(letters)", "await self._clock.sleep(0)"),),
    ),
    Mutant(
        "budget_released_twice",
        (
            Change(
                "pipeline",
                "        self._budget.release(batch.reserved)\n",
                "        self._budget.release(batch.reserved)\n        self._budget.release(batch.reserved)\n",
            ),
        ),
    ),
    Mutant("messages_left_open", (Change("pipeline", "            email.mime.close()\n", "            pass\n"),)),
    Mutant(
        "unconfirmed_not_forgotten",
        (Change("storing", "        self._ledger.abandon()\n", "        pass\n"),),
    ),
    Mutant(
        "drafts_forgotten",
        (
            Change(
                "progress",
                "drafts=(checkpoint.drafts | self.drafts) - self.no_drafts",
                "drafts=checkpoint.drafts - self.no_drafts",
            ),
        ),
    ),
    Mutant("no_waiting_after_failures", (Change("backoff", "return wait * (1 - self._jitter() / 3)", "return 0.01"),)),
    Mutant(
        "position_ahead_of_a_page_in_parts",
        (Change("following", "partial(Brought, part)", "partial(_followed, page, plan, part)"),),
    ),
    Mutant(
        "goes_on_after_a_part_that_failed",
        (
            Change(
                "following",
                "if self._folders.is_out(folder):\n                    return len",
                "if False:\n                    return len",
            ),
        ),
    ),
    Mutant("forgets_the_parts_that_are_stored", (Change("mailbox", "reading.read(remembered(checkpoint))", "pass"),)),
    Mutant(
        "ends_before_the_feed_does",
        (Change("progress", "return None if self.last else _counted", "return None if self.created else _counted"),),
    ),
    Mutant(
        "feed_brings_what_the_backfill_has_read",
        (Change("feed", "and name not in already_read and not", "and not"),),
    ),
]


def fate(mutant: Mutant) -> tuple[int, ViolatedError] | None:
    """Give the seed that catches the mutant, and what it violates."""
    with broken(mutant) as engine:
        for seed in SEEDS:
            try:
                Simulation(plan_for(seed), engine).run()
            except ViolatedError as error:
                return seed, error
    return None


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_whoever_breaks_the_engine_is_caught(mutant: Mutant) -> None:
    caught = fate(mutant)
    assert caught is not None, f"nobody notices within {len(SEEDS)} seeds"
    Simulation(plan_for(caught[0])).run()


def test_a_mutation_that_does_not_apply_any_more_is_noticed() -> None:
    gone = Mutant("gone", (Change("ledger", "there is no such line", ""),))
    with pytest.raises(MutationError, match="0 times"), broken(gone):
        pass
    nowhere = Mutant("nowhere", (Change("ledgers", "x", "y"),))
    with pytest.raises(MutationError, match="only 0"), broken(nowhere):
        pass
