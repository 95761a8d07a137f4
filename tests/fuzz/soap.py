"""Fuzzes the reader of EWS answers for as long as it is told to: `python -m tests.fuzz.soap --seconds 600`.

With atheris installed (`pip install atheris`) the coverage of the reader guides what is tried next; without it, answers
are damaged, or built with mistakes in them, by chance. An input that is too much is written to a file, and
`--replay FILE` reads it again.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.fuzz.answers import REAL, TOKENS, in_pieces, mutated, outcome, whole_answer

_SLOWEST = 5.0
"""Seconds that a small input may take. Most take less than a millisecond."""


def one_input(data: bytes) -> None:
    """Read `data` in one piece and in many; anything but an answer or one of our errors is raised."""
    begun = time.process_time()
    pieces = in_pieces(data, random.Random(data))
    if outcome(pieces) != outcome([data]):
        raise RuntimeError("where the input is cut makes a difference")
    if time.process_time() - begun > _SLOWEST:
        raise RuntimeError("it takes too long")


def by_chance(seconds: float, seed: int) -> int:
    """Read what is nearly an answer until the time is over; give how many there were."""
    rng = random.Random(seed)
    corpus = list(REAL)
    until = time.monotonic() + seconds
    count = 0
    while time.monotonic() < until:
        data = whole_answer(rng) if rng.randrange(4) == 0 else mutated(rng.choice(corpus), rng)
        try:
            one_input(data)
        except BaseException:
            with tempfile.NamedTemporaryFile(prefix="soap-", suffix=".xml", delete=False) as file:
                file.write(data)
            sys.stderr.write(f"seed {seed}, input {count}: see it again with --replay {file.name}\n")
            raise
        count += 1
        # What was damaged once is damaged further, now and then.
        if len(data) < 20_000 and rng.randrange(50) == 0:
            corpus[len(REAL) :] = [*corpus[len(REAL) :][-100:], data]
    return count


def with_atheris(atheris: Any, seconds: float, seed: int) -> None:
    """Let atheris look for new ways through the reader. It ends the process."""
    with atheris.instrument_imports(include=["ews_sync.sources.ews"]):
        for name in ("wire", "mime", "records", "decoding"):
            importlib.reload(sys.modules[f"ews_sync.sources.ews.{name}"])
    importlib.reload(sys.modules["tests.sources.support"])
    fuzzed = importlib.reload(sys.modules["tests.fuzz.answers"])

    def test(data: bytes) -> None:
        fuzzed.outcome(in_pieces(data, random.Random(data)))

    with tempfile.TemporaryDirectory(prefix="soap-") as directory:
        for number, data in enumerate(REAL):
            (Path(directory) / f"real-{number}").write_bytes(data)
        words = Path(directory) / "words"
        words.write_text("".join(f'"{_escaped(token)}"\n' for token in TOKENS))
        options = [f"-max_total_time={seconds:.0f}", f"-seed={seed}", f"-dict={words}", "-max_len=8000", "-timeout=20"]
        atheris.Setup([sys.argv[0], *options, directory], test)
        atheris.Fuzz()


def _escaped(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.soap", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 2**31))
    parser.add_argument("--replay", type=Path, help="read this file once instead")
    parser.add_argument("--by-chance", action="store_true", help="do without atheris")
    given = parser.parse_args(arguments)
    if given.replay:
        one_input(given.replay.read_bytes())
        return
    if not given.by_chance and importlib.util.find_spec("atheris") is not None:
        with_atheris(importlib.import_module("atheris"), given.seconds, given.seed)
    count = by_chance(given.seconds, given.seed)
    sys.stdout.write(f"{count} inputs, seed {given.seed}: answers and our own errors, nothing else\n")


if __name__ == "__main__":
    main()
