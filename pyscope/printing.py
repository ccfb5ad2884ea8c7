"""What every printed report is made of: styles, tables, and numbers in the units that people read."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from pyscope.analysis.counting import counted

HEAD = "bold"
FAINT = "dim"
GOOD = "green"
WARN = "yellow"
BAD = "red"
BAR = "cyan"


_COMMANDS = dict.fromkeys(
    (*range(0x0A), *range(0x0B, 0x20), *range(0x7F, 0xA0))
)  # to a terminal; not line ends
_PLAIN = str.maketrans("µ×…→–", "ux.>-")  # where the encoding may lack them


class _Terminal(Console):
    """Prints what programs named or said as it is: nothing in it is markup, or a command to the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        plain = {} if self.encoding.startswith("utf") else _PLAIN
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield segment._replace(text=segment.text.translate(_COMMANDS | plain))


def terminal() -> Console:
    """Standard output. What its encoding lacks is printed as a question mark."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    # Piped, rich prints neither colours nor more than 80 columns; highlighting would colour every number.
    return _Terminal(highlight=False, soft_wrap=False, markup=False, emoji=False)


def size(count_bytes: float) -> str:
    """A number of bytes in binary units: 512 B, 1.5 KiB, 64 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count_bytes < 1023.5 or unit == "GiB":
            break
        count_bytes /= 1024
    return f"{count_bytes:.3g} {unit}" if count_bytes < 100 else f"{count_bytes:.0f} {unit}"


def short_count(number: float) -> str:
    """A count in at most 5 characters: 999, 12.3k, 4.56M."""
    for unit, length in (("", 1), ("k", 1e3), ("M", 1e6), ("G", 1e9)):
        value = number / length
        if value < 999.5 or unit == "G":
            break
    if not unit:
        return f"{number:.0f}"
    return f"{value:.3g}{unit}" if value < 100 else f"{value:.0f}{unit}"


def count(number: int, noun: str, plural: str | None = None) -> str:
    return counted(number, noun, plural or "", ",")


def of_all(shown: int, there: int) -> str:
    """What a table's title says where it has not all rows."""
    return f" ({shown:,} of {there:,})" if shown < there else ""


def bar(share: float, width: int, encoding: str) -> str:
    """A bar of `width` characters at share 1, in eighths of a character where the encoding has them."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    if not encoding.lower().startswith("utf"):
        return "#" * round(eighths / 8)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (" ▏▎▍▌▋▊▉"[rest] if rest else "")


def place(name: str, file: str, line: int, room: int) -> Text:
    """The function, and where there is room its file and line; what is too long loses its beginning."""
    text = Text(tail(name, room))
    where = f"{os.path.basename(file)}:{line}" if file and line else ""
    if where and len(name) + 2 + len(where) <= room:
        text.append(f"  {where}", style=FAINT)
    return text


def one_line(text: str) -> str:
    """What a program named, with the ends of lines in it as they are written in Python."""
    return text.replace("\r", r"\r").replace("\n", r"\n")


def tail(text: str, room: int) -> str:
    room = max(room, 8)
    return text if len(text) <= room else "…" + text[-(room - 1) :]


def grid() -> Table:
    return Table(box=None, show_header=False, padding=(0, 2, 0, 0), expand=True)


def titled(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style=HEAD,
        box=None,
        header_style=FAINT,
        padding=(0, 2, 0, 0),
        expand=True,
    )
