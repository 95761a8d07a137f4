"""Names as hostile as they come, for whatever is made of names: paths, URLs, header values, lines."""

from __future__ import annotations

from hypothesis import strategies as st

from ews_sync.sinks.durable import TEMPORARY

SPECIAL = (
    # what leads elsewhere, or means something to a shell or a format
    "", ".", "..", "...", "../..", "/", "\\", "/etc/passwd", "a/../b", "~", "~/x", "%", "%2E", "%%", "-rf", "${HOME}",
    # what ends a line, or begins a command to a terminal
    "\0", "\n", "\r\n", "\r\nX-Evil: 1", "\x1b[2J", "\x9b31m", "\x7f", "\x85", "\u2028", "\u2029", "\u202e", "\ufeff",
    # what file systems of other machines take for something else, or for the same
    " ", "a ", "a.", "a..", "A", "a", "con", "CON.json", "nul.txt", "aux", "com1", "COM9.x", "lpt0", "conx",
    "\u00e9", "e\u0301", "\ufb01", "fi", "\u0130", "\u0131", "\u017f", "\u212a", "k", "\U0001f525", "\ud83d", "\udd25",
    # our own
    ".json", ".lock", ".json.bak", "a.json", "a.lock", "a.json.bak", ".tmp", TEMPORARY, "dead-letters.jsonl",
    "emails-1.jsonl", "2026", "01", "data", "state", "config",
)  # fmt: skip

NAMES = (
    st.text(st.characters(codec=None), max_size=300)
    | st.text(st.sampled_from("./\\~%a\0 .2EcCoOnN"), max_size=700)
    | st.sampled_from(SPECIAL)
    | st.lists(st.sampled_from(SPECIAL), max_size=4).map("".join)
)
"""Any text, all of Unicode with lone surrogates, and what is special put together."""
