"""State: which attributes of the watched objects and classes changed, from what to what, and which call did it.

Nothing is watched until `StateProbe.watch` names it. Three ways of seeing a change, each in a file of its own:
`attributes` (a class gets a `__setattr__` and a `__delattr__`), `snapshots` at `boundaries` (containers
changed in place, and writes past `__setattr__`, at the begin and end of the object's own methods and of an
actor's messages), and `mapped` (UPDATE statements of SQLAlchemy that set an attribute's column without
touching an object).

A frozen dataclass has nothing to see. Objects whose class cannot be changed (built-ins, extension types) are
compared at the boundaries of other watched objects, and at the end.
"""

from pyscope.probes.state.probe import StateProbe

__all__ = ["StateProbe"]
