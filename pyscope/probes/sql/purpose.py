"""Why the ORM sent a SELECT: which instance's attribute caused it, and what had loaded that instance."""

from __future__ import annotations

from typing import Any

from pyscope.events.sql import Load
from pyscope.probes.sql.fields import identity_number
from pyscope.probes.sql.known import Known
from pyscope.probes.sql.loads import Loads
from pyscope.probes.sql.template import SALT, mixed, plain

__all__ = ["ASKED", "OF_PROGRAM", "identity", "purpose"]

_GET, _EAGER, _QUERY = int(Load.GET), int(Load.EAGER), int(Load.QUERY)

OF_PROGRAM = int(Load.NONE), "", 0, ""
"""The purpose of a statement that is not the ORM's."""

ASKED = int(Load.NONE), _QUERY, _GET
"""The loads that the program itself asked for."""


def identity(state: Any) -> int:
    """A salted hash of an instance: by its primary key where that is of plain types."""
    key = state.key
    if key is None:
        return mixed("state", id(state))
    columns = key[1]
    if len(columns) == 1 and type(columns[0]) is int:
        return identity_number(SALT, id(key[0]), columns[0])  # the commonest
    values: list[object] = []
    for value in columns:
        safe = plain(value)
        if safe is None:
            return mixed("state", id(state))
        values.append(safe)
    return mixed(id(key[0]), *values)


def purpose(options: Any, known: Known, loads: Loads) -> tuple[int, str, int, str]:
    """Why the ORM sent a SELECT: the kind of load, the attribute, the instance, what had loaded that."""
    if options is not None:
        state = options._lazy_loaded_from
        if state is not None:
            run, text = loads.last
            if run != state.runid or not run:
                text = loads.template_of(state.runid)
            return known.load, known.relationship, identity(state), text
        state = options._refresh_state
        if state is not None:
            name = state.manager.class_.__name__
            wanted = known.columns
            if options._is_user_refresh:
                load = Load.REFRESH
            elif state.expired_attributes and not state.expired_attributes.isdisjoint(wanted):
                load = Load.SUBCLASS if _of_subclass(state, wanted) else Load.EXPIRED
            else:
                load = Load.DEFERRED
            if load in (Load.DEFERRED, Load.SUBCLASS) and len(wanted) <= 3:
                name = f"{name}.{'/'.join(sorted(wanted))}"
            return int(load), name, identity(state), loads.template_of(state.runid)
    return known.asked_load, known.relationship if known.asked_load == _EAGER else "", 0, ""


def _of_subclass(state: Any, wanted: Any) -> bool:
    """Whether attributes are missing since a base class was selected: a subclass's own, and nothing has expired."""
    inherited = state.mapper.inherits
    return inherited is not None and not state.expired and not any(map(inherited.has_property, wanted))
