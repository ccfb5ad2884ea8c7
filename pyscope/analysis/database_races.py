"""Races between database transactions: lost updates (P4), write skew (G2-item), and inserting what was just not there.

After Berenson et al., "A Critique of ANSI SQL Isolation Levels" (1995), and Adya's thesis (1999). Every judgement is
by what happened: a transaction that read a row before another changed it and committed, and that then wrote a value of
its own over it, has lost that change, whatever isolation level was asked for. Locks, `SET x = x + 1`, conditional
updates, version columns, unique constraints and serializable transactions are silent because under them it does not
happen, or the loser does not commit.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pyscope.analysis.race_advice import in_words
from pyscope.analysis.transactions import Committed, History, Use
from pyscope.events.sql import Touch
from pyscope.findings import Race

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["find"]

_MOST_NEIGHBOURS = 200
_READS = (Touch.READ, Touch.READ_KEY, Touch.READ_LOCKED)
_AGGREGATE = re.compile(r"\b(?:count|sum|min|max|avg)\s*\(", re.I)
_STRICT = ("SERIALIZABLE", "REPEATABLE READ", "SNAPSHOT")

_SUGGEST_UPDATE = (
    "Let the database compute it (SET {column} = {column} + …; Django: F('{column}') + …), or read the row "
    "with_for_update() (Django: select_for_update()), or give the model a version_id_col, or say in the UPDATE's WHERE "
    "what must still hold and check its rowcount. Write only what was changed (Django: save(update_fields=[…]))."
)
_SUGGEST_SKEW = (
    "Lock what the decision rests on with with_for_update() before deciding, or run both under SERIALIZABLE and repeat "
    "the one that fails."
)
_SUGGEST_INSERT = (
    "Give {table} a unique constraint on {columns} and handle IntegrityError, or use INSERT … ON CONFLICT; a check "
    "before the insert cannot keep another transaction from passing it too."
)
_SUGGEST_COUNT = (
    "Lock a row that stands for the whole, such as the parent, with with_for_update() before counting, or run under "
    "SERIALIZABLE and repeat the one that fails."
)


def find(trace: Trace) -> list[Race]:
    """The races of a trace's transactions, in order of time; the same race between the same places is told once.

    Grade `observed`: the other's commit fell between the read and the write. `possible`: it did not, but the two
    transactions were open at the same time, with nothing seen that would have kept it out.
    """
    history = History(trace)
    merged: dict[object, Race] = {}
    for race in _races(history):
        places = tuple((access.operation, access.location) for access in race.accesses)
        key = race.kind, race.subject, race.grade, places
        known = merged.get(key)
        if known is None:
            merged[key] = race
        else:
            merged[key] = _counted(known, known.count + 1)
    observed = {(race.kind, race.subject) for race in merged.values() if race.grade == "observed"}
    kept = [
        race
        for race in merged.values()
        if race.grade == "observed" or (race.kind, race.subject) not in observed
    ]
    return sorted(kept, key=lambda race: race.accesses[0].time_ns)


def _counted(race: Race, count: int) -> Race:
    return Race(race.kind, race.subject, race.accesses, race.grade, race.explanation, race.suggestion, count)


def _races(history: History) -> Iterator[Race]:
    skewed: set[frozenset[int]] = set()
    for users in history.by_row.values():
        yield from _lost_updates(history, users)
        yield from _double_inserts(history, users)
        for first, second in _blind_pairs(users):
            pair = frozenset((first.number, second.number))
            if pair not in skewed:
                skewed.add(pair)
                yield from _write_skew(history, first, second)


# --- lost updates --------------------------------------------------------------------------------

Users = list[tuple[Committed, list[Use]]]


def _lost_updates(history: History, users: Users) -> Iterator[Race]:
    visible = [transaction.visible_ns for transaction, _ in users]
    longest = max(transaction.visible_ns - transaction.start_ns for transaction, _ in users)
    for own, uses in users:
        for write in uses:
            read = _known_since(uses, write)
            if read is None:
                continue
            since = read.end_ns
            found = False
            for at in range(bisect_right(visible, since), bisect_left(visible, write.end_ns)):
                other, theirs = users[at]
                foreign = _overwritten(write, theirs) if other is not own else None
                if foreign is not None and (not other.autocommit or _surely_replaced(foreign, theirs, write)):
                    found = True
                    yield _lost_update(history, read, foreign, other, write, "observed")
            if not found and read.touch is not Touch.READ_LOCKED and not _kept_out(own):
                first = bisect_left(visible, own.start_ns)
                last = bisect_right(visible, own.visible_ns + longest)
                for other, theirs in users[first : min(last, first + _MOST_NEIGHBOURS)]:
                    if other is not own and other.flow != own.flow and _open_together(own, other):
                        foreign = _overwritten(write, theirs)
                        if foreign is not None and not _common_lock(own, other):
                            yield _lost_update(history, read, foreign, other, write, "possible")
                            break


def _known_since(uses: list[Use], write: Use) -> Use | None:
    """What a write of values from the program rests on: the latest read, or own write, of the row before it."""
    if write.touch is not Touch.WRITE or not write.columns:
        return None
    before = [use for use in uses if use is not write and use.end_ns <= write.start_ns]
    if not any(use.touch in _READS for use in before):
        return None
    return max(before, key=lambda use: use.end_ns)


def _overwritten(write: Use, theirs: list[Use]) -> Use | None:
    """The foreign write whose values a write replaces without having looked at them, or at anything else it changed."""
    for use in theirs:
        if use.touch is Touch.WRITE and use.changed & write.columns and not use.changed & write.guards:
            return use
    return None


def _surely_replaced(foreign: Use, theirs: list[Use], write: Use) -> bool:
    """Of two statements that commit themselves: the foreign one came first, or each replaced what it had not seen."""
    known = _known_since(theirs, foreign)
    return foreign.end_ns <= write.start_ns or (known is not None and known.end_ns < write.start_ns)


def _lost_update(history: History, read: Use, foreign: Use, other: Committed, write: Use, grade: str) -> Race:
    columns = sorted(foreign.changed & write.columns)
    subject = f"{write.table}.{','.join(columns)}"
    accesses = [
        history.access("read", read),
        history.access("write", foreign, other.visible_ns if grade == "observed" else 0),
        history.access("write", write),
    ]
    known, theirs, own = (in_words(access.location) for access in accesses)
    accesses.sort(key=lambda access: access.time_ns)
    changed = ", ".join(columns)
    if grade == "observed":
        explanation = (
            f"A transaction read a row of {write.table} at {known}; another changed {changed} of it at {theirs} and "
            f"committed; the first then wrote over that, at {own}, without having looked again. The other's change is "
            "lost."
        )
    else:
        explanation = (
            f"Two transactions that were open at the same time both changed {changed} of one row of {write.table}, "
            f"at {own} from a value read without a lock at {known}, and at {theirs}. This time neither came in between."
        )
    # Of a whole row that was written nobody computes the references.
    column = next((column for column in columns if not column.endswith("_id")), columns[0])
    suggestion = _SUGGEST_UPDATE.format(column=column)
    return Race("lost_update", subject, tuple(accesses), grade, explanation, suggestion)


def _kept_out(transaction: Committed) -> bool:
    """Whether the database, or a lock of the whole, would not have let another in between."""
    return transaction.locked or transaction.isolation.upper().replace("_", " ") in _STRICT


def _open_together(one: Committed, other: Committed) -> bool:
    return one.start_ns < other.visible_ns and other.start_ns < one.visible_ns


def _common_lock(one: Committed, other: Committed) -> bool:
    """Whether both locked the same row: then they took turns."""
    locked = {use.row for use in one.uses if use.touch is Touch.READ_LOCKED}
    return any(use.touch is Touch.READ_LOCKED and use.row in locked for use in other.uses)


# --- write skew ----------------------------------------------------------------------------------


def _blind_pairs(users: Users) -> Iterator[tuple[Committed, Committed]]:
    """Transactions of which neither can have seen what the other wrote, as far as they were open together."""
    for at, (second, _) in enumerate(users):
        for back in range(at - 1, max(-1, at - 1 - _MOST_NEIGHBOURS), -1):
            first = users[back][0]
            if first.visible_ns <= second.start_ns:
                break  # in order of commit: those before ended even earlier
            yield first, second


def _write_skew(history: History, first: Committed, second: Committed) -> Iterator[Race]:
    """Each read a row that the other changed, and changed another: their results fit together in no order."""
    one, one_strong = _missed(first, second)
    two, two_strong = _missed(second, first)
    if one is None or two is None or not (one_strong or two_strong):
        yield from _group_skew(history, first, second)
        return
    yield _row_skew(history, [one, two], "observed" if one_strong and two_strong else "possible")


def _missed(reader: Committed, writer: Committed) -> tuple[tuple[Use, Use] | None, bool]:
    """A read and the write of the same row that it missed; and whether the reader's decision likely rested on it.

    It did if the row was asked for by its key, or if the write changed a column of the condition by which it was found.
    """
    own = {use.row for use in reader.uses if use.touch >= Touch.WRITE}
    writes = {use.row: use for use in writer.uses if use.touch is Touch.WRITE and use.row not in own}
    weak = None
    for use in reader.uses:
        write = writes.get(use.row)
        if write is None or use.touch not in _READS or use.end_ns >= writer.visible_ns:
            continue
        if use.touch is not Touch.READ or use.columns & write.changed:
            return (use, write), True
        weak = weak or (use, write)
    return weak, False


def _row_skew(history: History, missed: list[tuple[Use, Use]], grade: str) -> Race:
    tables = sorted({f"{write.table}.{','.join(sorted(write.changed))}" for _, write in missed})
    (first, _), (second, theirs) = missed
    explanation = (
        "Two transactions were open at the same time; each read a row that the other then changed "
        f"({_one_or_both(history, first, second)}), and changed another row of {theirs.table} itself "
        f"({_one_or_both(history, *(write for _, write in missed))}). Each was right by what it had read; together "
        "they may break what both had checked."
    )
    return _skew(history, missed, " and ".join(tables), grade, explanation, _SUGGEST_SKEW)


def _skew(
    history: History, missed: list[tuple[Use, Use]], subject: str, grade: str, why: str, cure: str
) -> Race:
    accesses = [history.access("read", read) for read, _ in missed]
    for _, write in missed:
        accesses.append(history.access("delete" if write.touch is Touch.DELETE else "write", write))
    accesses.sort(key=lambda access: access.time_ns)
    return Race("write_skew", subject, tuple(accesses), grade, why, cure)


def _one_or_both(history: History, *uses: Use) -> str:
    return " and ".join(dict.fromkeys(in_words(history.access("", use).location) for use in uses))


def _group_skew(history: History, first: Committed, second: Committed) -> Iterator[Race]:
    """Both counted or summed the same rows of a table, and each then changed or deleted another of them."""
    groups = {use.row: use for use in first.uses if use.touch is Touch.READ_GROUP}
    for use in second.uses:
        mine = groups.get(use.row)
        if use.touch is not Touch.READ_GROUP or mine is None:
            continue
        if mine.end_ns >= second.visible_ns or use.end_ns >= first.visible_ns:
            continue
        one, two = ([write for write in who.uses if _leaves(write, use)] for who in (first, second))
        rows = {write.row for write in one} & {write.row for write in two}
        one = [write for write in one if write.row not in rows]
        two = [write for write in two if write.row not in rows]
        if one and two:
            yield _counted_skew(history, [(mine, two[0]), (use, one[0])])
            return


def _leaves(write: Use, group: Use) -> bool:
    """Whether a write may take a row out of a group, or change what was summed of it."""
    return write.table == group.table and write.touch in (Touch.WRITE, Touch.DELETE)


def _counted_skew(history: History, missed: list[tuple[Use, Use]]) -> Race:
    reads, writes = [read for read, _ in missed], [write for _, write in missed]
    table = reads[0].table
    columns = {column for write in writes for column in write.changed} or reads[0].columns
    deletes = {write.touch for write in writes} == {Touch.DELETE}
    explanation = (
        f"Two transactions were open at the same time; each counted or summed the same rows of {table} "
        f"({_one_or_both(history, *reads)}), and then {'deleted' if deletes else 'changed'} one of them that the other "
        f"did not ({_one_or_both(history, *writes)}). Each was right by what it had counted; together they may break "
        "what both had checked."
    )
    subject = f"{table}.{','.join(sorted(columns))}"
    return _skew(history, missed, subject, "observed", explanation, _SUGGEST_COUNT)


# --- check, then insert --------------------------------------------------------------------------


def _double_inserts(history: History, users: Users) -> Iterator[Race]:
    """Two transactions looked for the same, and each inserted it, neither seeing the other's."""
    for first, second in _blind_pairs(users):
        one, two = _check_and_insert(users, first), _check_and_insert(users, second)
        if one is None or two is None:
            continue
        if one[0].end_ns >= second.visible_ns or two[0].end_ns >= first.visible_ns:
            continue
        check, insert = one
        columns = ", ".join(sorted(check.columns))
        accesses = [
            history.access("check", check),
            history.access("check", two[0]),
            history.access("insert", insert),
            history.access("insert", two[1]),
        ]
        accesses.sort(key=lambda access: access.time_ns)
        explanation = (
            f"Two transactions looked into {check.table} by {columns} ({_one_or_both(history, check, two[0])}), and "
            f"each then inserted a row there ({_one_or_both(history, insert, two[1])}) before it could see the "
            "other's: what was checked no longer holds."
        )
        counted = _AGGREGATE.search(history.text_of(check)) is not None
        suggestion = _SUGGEST_COUNT if counted else _SUGGEST_INSERT.format(table=check.table, columns=columns)
        yield Race(
            "check_then_act", f"{check.table}.{columns}", tuple(accesses), "observed", explanation, suggestion
        )


def _check_and_insert(users: Users, who: Committed) -> tuple[Use, Use] | None:
    uses = next(uses for transaction, uses in users if transaction is who)
    checks = [use for use in uses if use.touch is Touch.READ_GROUP]
    inserts = [use for use in uses if use.touch is Touch.INSERT_CHECKED]
    if not checks or not inserts:
        return None
    return min(checks, key=lambda use: use.end_ns), inserts[0]
