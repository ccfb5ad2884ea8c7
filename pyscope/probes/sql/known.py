"""What is the same each time a statement is sent: found out once, kept while SQLAlchemy keeps it compiled."""

from __future__ import annotations

import weakref
from typing import Any

from pyscope.events.sql import Load
from pyscope.probes.sql.fields import KnownFields
from pyscope.probes.sql.shape import Shape, of_compiled, of_text
from pyscope.probes.sql.template import template

__all__ = ["Known", "compiled_statements", "known_of"]

_MOST_KNOWN = 2000


class Known(KnownFields):
    """A statement as such. `orm`: it is a SELECT of the ORM; `entities`: it loads instances.

    `relationship`: "Class.attribute" where it stands for a relationship, which a lazy `load` then is of; `asked_load`:
    what it is where it loads for no instance that is there: a get, a query, or an eager loader's. `columns`:
    attributes that it fills in an instance that is there. `names_rows`: its condition names rows, or a group of them,
    by values. `names`: of a recording, by its generation: the numbers of the template and the relationship.
    """

    __slots__ = ("columns", "shape")

    def __init__(self, shape: Shape, text: str) -> None:
        self.shape = shape
        self.template = text
        self.names = 0, 0, 0
        self.operation = int(shape.operation)
        self.orm = False
        self.paged = shape.paged
        self.entities = False
        self.relationship = ""
        self.load = int(Load.NONE)
        self.asked_load = int(Load.GET if shape.get else Load.QUERY)
        self.names_rows = bool(shape.table and (shape.equalities or shape.keys is not None))
        self.columns: frozenset[str] = frozenset()


compiled_statements: dict[int, tuple[weakref.ref[Any], Known]] = {}
"""By the address of what SQLAlchemy has compiled."""

_texts: dict[str, Known] = {}


def known_of(compiled: Any, statement: str, dialect: str) -> Known:
    """What is known of a statement; `compiled` is None for one that was written by hand."""
    if compiled is None:
        found = _texts.get(statement)
        if found is None:
            if len(_texts) >= _MOST_KNOWN:
                _texts.clear()
            found = _texts[statement] = Known(of_text(statement), template(statement, dialect))
        return found
    entry = compiled_statements.get(id(compiled))
    if entry is not None and entry[0]() is compiled:
        return entry[1]
    found = Known(of_compiled(compiled), template(statement, dialect))
    _look_at_origin(found, getattr(compiled, "compile_state", None))
    if len(compiled_statements) >= _MOST_KNOWN:
        compiled_statements.clear()
    compiled_statements[id(compiled)] = weakref.ref(compiled), found
    return found


def _look_at_origin(known: Known, origin: Any) -> None:
    """`origin`: SQLAlchemy's state of the compilation, which for the ORM tells what the statement is for."""
    path = getattr(origin, "current_path", None)
    if path is None:
        return
    known.orm = True
    known.entities = bool(getattr(origin, "_has_mapper_entities", True))
    known.columns = frozenset(getattr(origin.compile_options, "_only_load_props", None) or ())
    if not path.is_root:
        if not known.shape.get:
            known.asked_load = int(Load.EAGER)
        prop = path[-1]
        if hasattr(prop, "uselist"):
            known.relationship = f"{prop.parent.class_.__name__}.{prop.key}"
            known.load = int(Load.COLLECTION if prop.uselist else Load.SCALAR)
