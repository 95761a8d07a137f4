"""Into the platform, against into files: emails a second, processor time, peak memory. `make bench`.

The real command runs as a process of its own, once for each row, on the same mail.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from benchmarks.servers import BUCKET, OWNER, PASSWORD, TOKEN, USER, Addresses, Load, servers

_COMMAND = (sys.executable, "-c", "import sys; from ews_sync.cli import main; sys.exit(main())")
_LIMIT = 600.0


@dataclass(frozen=True, slots=True)
class Figures:
    """One run: emails a second, processor milliseconds an email, and the highest resident set in MiB."""

    rate: float
    processor: float
    peak: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    small = Load(mailboxes=4, messages=1000, size=24_000)
    one = Load(mailboxes=1, messages=2000, size=24_000)
    large = Load(mailboxes=1, messages=20, size=20_000_000)
    _table("4 mailboxes x 1,000 emails of 24 KB", small, ("jsonl", "eml", "platform 0 ms", "platform 20 ms"), rounds)
    _table("1 mailbox x 2,000 emails of 24 KB", one, ("jsonl", "platform 0 ms", "platform 20 ms"), rounds)
    _table("20 messages of 20 MB, 8 workers", large, ("jsonl", "platform 20 ms"), 1)


def _table(title: str, load: Load, sinks: tuple[str, ...], rounds: int) -> None:
    print(f"\n{title}; medians of {rounds}")
    print(f"{'into':<16}{'emails/s':>10}{'ratio':>8}{'CPU ms/email':>14}{'peak MiB':>10}")
    results: dict[str, list[Figures]] = {sink: [] for sink in sinks}
    for _ in range(rounds):
        for sink in sinks:
            kind, _, latency = sink.partition(" ")
            slow = replace(load, platform_latency=float(latency.removesuffix(" ms") or 0) / 1000)
            with tempfile.TemporaryDirectory() as directory, servers(slow, Path(directory)) as addresses:
                results[sink].append(_measure(slow, kind, addresses, Path(directory)))
    base = median(figures.rate for figures in results[sinks[0]])
    for sink, runs in results.items():
        rate, processor, peak = (median(getattr(run, name) for run in runs) for name in Figures.__slots__)
        print(f"{sink:<16}{rate:>10.1f}{rate / base:>8.2f}{processor:>14.2f}{peak:>10.1f}")


def _measure(load: Load, sink: str, addresses: Addresses, directory: Path) -> Figures:
    config = {
        "ews_endpoint": addresses.exchange,
        "auth_type": "basic",
        "auth_user": USER,
        "auth_password": PASSWORD,
        "access_type": "impersonation",
        "poll_message_sleep": 0,
        "mailboxes": {address: {"bucket": {"owner": OWNER, "name": BUCKET}} for address in load.addresses()},
    }
    path = directory / "config.json"
    path.write_text(json.dumps(config))
    environment = {**os.environ, "REINFER_EWS_CONFIG": str(path), "MALLOC_ARENA_MAX": "2"}
    arguments = ["--bind", "127.0.0.1:0"]
    if sink == "platform":
        environment["REINFER_API_TOKEN"] = TOKEN
        arguments += ["--reinfer-api-endpoint", addresses.platform]
    else:
        arguments += ["--local-files-prefix", str(directory / "files"), "--local-files-format", sink]
    with (directory / "log").open("w+") as log:
        started = time.monotonic()
        process = subprocess.Popen([*_COMMAND, *arguments], env=environment, stderr=log)
        try:
            begun = _wait(process, directory / "log", load)
            seconds = time.monotonic() - max(started, begun)
            return Figures(load.emails / seconds, _processor(process.pid) * 1000 / load.emails, _peak(process.pid))
        finally:
            process.terminate()
            process.wait()


def _wait(process: subprocess.Popen[bytes], log: Path, load: Load) -> float:
    """Wait until all is stored; give when it began to listen."""
    address, begun = "", 0.0
    end = time.monotonic() + _LIMIT
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.02)
        if not address:
            lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
            address = next((str(line["listening"]) for line in lines if "listening" in line), "")
            begun = time.monotonic()
            continue
        with urllib.request.urlopen(f"{address}/status?format=json") as answer:
            stored = sum(mailbox["stored"] for mailbox in json.load(answer)["mailboxes"])
        if stored >= load.emails:
            return begun
    raise SystemExit(f"not everything was stored:\n{log.read_text()[-3000:]}")


def _processor(pid: int) -> float:
    """Give the processor time in seconds that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("the system does not tell a process's peak memory")


if __name__ == "__main__":
    main()
