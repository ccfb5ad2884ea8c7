"""What to say of queries that are too many: what happened, and what to change."""

from __future__ import annotations

import re

from pyscope.events.sql import Load

__all__ = ["advice", "explained"]

_FROM = re.compile(r'\bFROM\s+(?:[\w"`]+\.)?["`]?(\w+)', re.I)
_AGGREGATE = re.compile(r"\b(?:count|sum|min|max|avg)\s*\(", re.I)

_ATTRIBUTES = (
    Load.COLLECTION, Load.SCALAR, Load.DEFERRED, Load.SUBCLASS, Load.FOREIGN_KEY, Load.RELATED_SET, Load.LEFT_OUT,
)  # fmt: skip


def advice(load: Load, statement: str, relationship: str, outer: str, repeated: bool) -> str:
    """What to change. `outer`: the relationship whose own N+1 loaded the instances, or empty."""
    if repeated:
        return "Send it once, keep the result in a variable and pass it on."
    parent, _, attribute = relationship.partition(".")
    if load in (Load.COLLECTION, Load.SCALAR):
        option = f"{'selectinload' if load is Load.COLLECTION else 'joinedload'}({relationship})"
        if outer:
            return (
                f"Load both with the outermost instances: .options(selectinload({outer}).{option}) "
                f"on the statement that loads {outer.partition('.')[0]}."
            )
        return f"Load it with the parents: .options({option}) on the statement that loads {parent}."
    if load is Load.DEFERRED:
        if attribute:
            columns = ", ".join(f"undefer({parent}.{name})" for name in attribute.split("/"))
            return f"Load it with the instances: .options({columns}) on the statement that loads {parent}."
        return f"Load these columns with the instances: .options(undefer(…)) on the statement that loads {parent}."
    if load is Load.SUBCLASS:
        return f"Load it with the instances: .options(selectin_polymorphic(BaseClass, [{parent}])) on their statement."
    if load is Load.EXPIRED:
        return (
            "A commit, rollback or expire() has emptied the instances: make the session with "
            f"expire_on_commit=False, or load them again before the loop: select({parent}).where(….in_(ids))."
        )
    if load is Load.REFRESH:
        return (
            f"Refresh them in one statement: select({parent}).where(….in_(ids))"
            ".execution_options(populate_existing=True)."
        )
    if load is Load.FOREIGN_KEY:
        return (
            f"Load it with the instances: select_related({attribute!r}) on the QuerySet that loads {parent}."
        )
    if load is Load.RELATED_SET:
        return (
            f"Load it with the instances: prefetch_related({attribute!r}) on the QuerySet that loads {parent}; where "
            f"the set is filtered, Prefetch({attribute!r}, queryset=…, to_attr=…)."
        )
    if load is Load.LEFT_OUT:
        return f"Take {attribute} out of defer(), or into only(), on the QuerySet that loads {parent}."
    table = _FROM.search(statement)
    what = f" of {table[1]}" if table else ""
    if load is Load.GET:
        return (
            f"Collect the keys{what} and send one statement, select(…).where(….in_(keys)), before the loop."
        )
    if load is Load.ONE:
        return f"Collect the keys{what} and ask once before the loop: in_bulk(keys), or filter(…__in=keys)."
    if _AGGREGATE.search(statement):
        return f"Ask for all of them at once{what}: one statement with GROUP BY, before the loop."
    return f"Collect the values and send one statement{what} with IN (…) or a JOIN, before the loop."


def explained(load: Load, count: int, distinct: int, relationship: str, repeated: bool) -> str:
    """What happened, in one sentence."""
    if repeated:
        return f"The same SELECT was sent {count} times with the same values, and nothing was written in between."
    parent = relationship.partition(".")[0]
    if load in _ATTRIBUTES:
        return (
            f"{count} SELECTs loaded {relationship or parent} one by one for {distinct} {parent} instances; "
            "one statement could have."
        )
    if load is Load.EXPIRED:
        return f"{count} SELECTs loaded {distinct} expired {parent} instances again, one by one."
    if load is Load.REFRESH:
        return f"{count} SELECTs refreshed {distinct} {parent} instances one by one."
    how = {Load.GET: "Session.get() sent", Load.ONE: "QuerySet.get() sent"}.get(load, "A loop sent")
    return f"{how} {count} SELECTs that differ only in their values ({distinct} different ones)."
