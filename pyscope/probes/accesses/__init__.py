"""Accesses: reads and writes of the attributes of declared objects, with what the code does with what it read.

Nothing is watched until `AccessProbe.watch` names it. `hooks` see the accesses, `sites` read off the bytecode
what becomes of a value (`code`, `branches`), `keys` tell which element of a container is meant.

What is not seen: attributes of a class read or written through the class itself (its metaclass is `type`, which
cannot be changed), `vars(instance)["x"] = 1`, access from C code that goes past `__getattribute__`, instances
of built-in and extension types, and a container's use through another reference than the attribute: `items =
self.items; items.append(1)` is one plain read. Containers are never replaced or wrapped: the program keeps the
very objects that it made.
"""

from pyscope.probes.accesses.probe import AccessProbe

__all__ = ["AccessProbe"]
