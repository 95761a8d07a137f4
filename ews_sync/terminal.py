"""Writing to whoever reads our output: a terminal in any encoding, a pipe, or somebody who is gone already."""

from __future__ import annotations

import os
from typing import TextIO


def say(stream: TextIO, *lines: str) -> bool:
    """Write lines; what the stream's encoding lacks is escaped. Tell whether anybody still reads."""
    return write(stream, "".join(f"{line}\n" for line in lines))


def write(stream: TextIO, text: str) -> bool:
    """Write a text as it is, like `say`."""
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except BrokenPipeError:
        # Python would try once more at its end, and complain; there is nobody to complain to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True
