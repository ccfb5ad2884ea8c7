"""What is to be told of an access at a place in the program: found out once for each calling stack.

A stack's number stands for the instructions that all its frames are at, and so for all that `sites` can say.
"""

from __future__ import annotations

import os
from types import CodeType, FrameType
from typing import NamedTuple

from pyscope import emitter, probes
from pyscope.events.sync import AccessFlag
from pyscope.probes.accesses.keys import constant_key
from pyscope.probes.accesses.sites import KeySource, Sites, Use
from pyscope.probes.sync import SyncProbe
from pyscope.selection import library_prefixes

__all__ = ["ContentPlan", "Places", "ReadPlan", "WritePlan"]

MOST_LEVELS = 6  # frames that a value is followed outward through
UNKNOWN_LEVEL = 99  # it left the program's own frames
MOST_CODES = 20_000

_CHECK, _CONSTANT, _DISCARDED, _UNSEEN, _BRANCHES, _VARIABLE = (int(flag) for flag in AccessFlag)
_OWN = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "")


class ContentPlan(NamedTuple):
    """Of what is done to the container that an attribute holds."""

    operation: int
    key: KeySource | int | None  # a number if it is always the same
    keyed: bool
    flags: int
    level: int
    lines: int


class ReadPlan(NamedTuple):
    """`generation`: of the recording whose numbers these are."""

    label: str
    generation: int
    label_number: int
    flags: int
    level: int
    lines: int
    contents: tuple[ContentPlan, ...]
    tells_reference: bool  # the reference itself matters too when the attribute holds a container


class WritePlan(NamedTuple):
    """`generation`: of the recording whose numbers these are."""

    label: str
    generation: int
    label_number: int
    flags: int


class Places:
    """Plans are made here; whoever asks keeps them."""

    def __init__(self) -> None:
        self._code: dict[int, tuple[CodeType, Sites | None]] = {}  # None: not the program's own
        self._libraries = library_prefixes()

    def read(self, label: str, frame: FrameType) -> ReadPlan | None:
        """Of a read that `frame`, or a frame further out, has made. None if the program is not in it."""
        own, sites, offset = self._own_frame(frame)
        if sites is None:
            return None
        site = sites.read(own.f_lasti) if offset == 0 else sites.resumed(own.f_lasti)
        unseen = self._unseen(own)
        intern = emitter.intern
        contents = []
        for content, use in zip(site.contents, site.uses[1:], strict=True):
            flags, level, lines = self._use(use, sites, own)
            contents.append(
                ContentPlan(
                    int(content.operation),
                    constant_key(content.key),
                    content.keyed,
                    flags | unseen,
                    level,
                    intern(lines) if lines else 0,
                )
            )
        flags, level, lines = self._use(site.uses[0], sites, own)
        return ReadPlan(
            label,
            emitter.generation,
            intern(label),
            flags | unseen,
            level,
            intern(lines) if lines else 0,
            tuple(contents),
            not flags & _DISCARDED,
        )

    def write(self, label: str, frame: FrameType, deletes: bool) -> WritePlan:
        """Of a write that `frame`, or a frame further out, makes."""
        own, sites, offset = self._own_frame(frame)
        flags = self._unseen(own)
        if sites is not None and (deletes or (offset == 0 and sites.writes_constant(own.f_lasti))):
            flags |= _CONSTANT
        return WritePlan(label, emitter.generation, emitter.intern(label), flags)

    def _use(self, use: Use, sites: Sites, frame: FrameType) -> tuple[int, int, str]:
        """Flags, level and decided lines of a value, followed outward as it is returned."""
        level = 0
        check, kept = use.check, use.kept
        matters = kept or (check and bool(use.branches))  # nothing comes of a comparison otherwise
        lines = sites.decided_lines(use)
        found_level = 0
        kept_further_in = False
        while use.returned or (sites.is_comprehension and (check or kept)):
            inner = sites
            outer = frame.f_back
            while outer is not None and outer.f_code.co_filename.startswith(_OWN):
                outer = outer.f_back
            own = self._sites(outer.f_code) if outer is not None else None
            level += 1
            if outer is None or own is None or level > MOST_LEVELS:
                if not check:
                    return 0, UNKNOWN_LEVEL, ""
                matters = True
                break
            frame, sites = outer, own
            use = sites.resumed(frame.f_lasti).uses[0]
            kept_further_in = kept
            check, kept = check or use.check, kept or use.kept
            matters = (
                use.kept or (use.check and bool(use.branches)) or (matters and not inner.is_comprehension)
            )
            found_level = level
            outer_lines = sites.decided_lines(use)
            lines = outer_lines if inner.is_comprehension else outer_lines or lines
        flags = (_CHECK if check else 0) | (0 if matters else _DISCARDED)
        if found_level and kept and not check and not kept_further_in:
            using = sites.using_lines(use)
            if using is not None:
                return flags | _VARIABLE, found_level, using
        if lines is not None:
            flags |= _BRANCHES
        return flags, found_level, lines or ""

    # frames

    def _own_frame(self, frame: FrameType) -> tuple[FrameType, Sites | None, int]:
        """The innermost frame of the program's own, its sites, how far out it is; no sites if there is none."""
        own: FrameType | None = frame
        offset = 0
        while own is not None:
            sites = self._sites(own.f_code)
            if sites is not None:
                return own, sites, offset
            if not own.f_code.co_filename.startswith(_OWN):
                offset += 1  # PyScope's own frames between do not count
            own = own.f_back
        return frame, None, 0

    def frame(self, frame: FrameType) -> FrameType:
        """The innermost frame of the program's own."""
        return self._own_frame(frame)[0]

    def _sites(self, code: CodeType) -> Sites | None:
        known = self._code.get(id(code))
        if known is None:
            file = code.co_filename
            library = file.startswith((*self._libraries, _OWN, "<frozen")) or file == "<string>"
            known = code, None if library else Sites(code)
            if len(self._code) < MOST_CODES:
                self._code[id(code)] = known
        return known[1]

    @staticmethod
    def _unseen(frame: FrameType | None) -> int:
        sync = probes.installed("sync")
        files = sync.unseen_files if isinstance(sync, SyncProbe) else ()
        if files:
            steps = 0
            while frame is not None and steps < 32:
                if frame.f_code.co_filename in files:
                    return _UNSEEN
                frame = frame.f_back
                steps += 1
        return 0
