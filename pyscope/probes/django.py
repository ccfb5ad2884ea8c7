"""Django's ORM: statements, transactions, and which instance's attribute caused which SELECT.

Statements are seen where Django's cursor hands them to the driver, below the `execute_wrappers` of the program; of
every connection, each once. Why one is sent is noted by whatever of the ORM causes it, outermost first: an attribute
that was not loaded yet, a related manager, `QuerySet.get()`, a prefetch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from time import perf_counter_ns
from typing import Any, NamedTuple

from pyscope import emitter
from pyscope.events.sql import STATEMENT, Load, Operation
from pyscope.probes import Probe, on_import
from pyscope.probes.django_transactions import Transactions
from pyscope.probes.patches import Patches
from pyscope.probes.scope import exception_name
from pyscope.probes.sql.known import Known, known_of
from pyscope.probes.sql.template import fingerprint, mixed, plain

__all__ = ["DjangoProbe"]

_STATEMENT = STATEMENT.kind
_SELECT = int(Operation.SELECT)


class _Purpose(NamedTuple):
    """Why a SELECT is sent. `parent`: a salted hash of the instance whose attribute was touched, 0 for none."""

    load: int
    relationship: str = ""
    parent: int = 0


_OF_PROGRAM = _Purpose(int(Load.NONE))
_ONE = _Purpose(int(Load.ONE))
_PREFETCH = _Purpose(int(Load.EAGER))
_purpose: ContextVar[_Purpose | None] = ContextVar("pyscope_django_purpose", default=None)


class DjangoProbe(Probe):
    """Watches every connection of the process, and the QuerySets and models of Django's ORM."""

    name = "django"
    library = "django.db"
    extra = "test"

    def __init__(self) -> None:
        super().__init__()
        self._patches = Patches()
        self._transactions = Transactions(self._patches, self.fault)

    def install(self) -> None:
        from django.db.backends import utils

        self._patches = Patches()
        self._transactions = Transactions(self._patches, self.fault)
        self._transactions.install()
        for name in ("_execute", "_executemany"):
            if not self._patches.replace(utils.CursorWrapper, name, self._sending):
                raise AttributeError(f"this version of Django has no CursorWrapper.{name}")
        on_import.call("django.db.models", self._install_orm, self)

    def _install_orm(self) -> None:
        from django.db.models import query, query_utils
        from django.db.models.fields import related_descriptors as related

        patches = self._patches
        if patches.on:
            self._transactions.install_orm()
            patches.replace(query.QuerySet, "_fetch_all", self._fetching)
            patches.replace(query.QuerySet, "get", functools.partial(_for, _ONE))
            patches.replace(query, "prefetch_one", functools.partial(_for, _PREFETCH))
            for owner, name, tell in (
                (related.ForwardManyToOneDescriptor, "get_object", _of_field),
                (related.ReverseOneToOneDescriptor, "__get__", _of_reverse),
                (query_utils.DeferredAttribute, "__get__", _of_column),
            ):
                patches.replace(owner, name, functools.partial(self._touching, tell))

    def uninstall(self) -> None:
        self._patches.undo()

    # statements

    def _sending(self, original: Callable[..., Any]) -> Callable[..., Any]:
        patches, tell = self._patches, self._tell
        many = original.__name__ == "_executemany"

        @functools.wraps(original)
        def send(cursor: Any, sql: Any, parameters: Any, *ignored: Any) -> Any:
            if not patches.on or not emitter.active():
                return original(cursor, sql, parameters, *ignored)
            started = perf_counter_ns()
            try:
                result = original(cursor, sql, parameters, *ignored)
            except BaseException as error:
                tell(cursor, sql, parameters, many, perf_counter_ns() - started, error)
                raise
            tell(cursor, sql, parameters, many, perf_counter_ns() - started, None)
            return result

        return send

    def _tell(
        self,
        cursor: Any,
        sql: Any,
        parameters: Any,
        many: bool,
        duration: int,
        error: BaseException | None,
    ) -> None:
        try:
            database = cursor.db
            known = _known(sql, database.vendor)
            rows = -1 if error is not None else cursor.cursor.rowcount
            if type(rows) is not int:
                rows = -1
            connection, transaction = self._transactions.begun_for(database, known)
            selects = known.operation == _SELECT
            purpose = _purpose.get() or _OF_PROGRAM if selects else _OF_PROGRAM
            arguments = purpose.parent or fingerprint(known.template, parameters) if selects else 0
            intern = emitter.intern
            number = emitter.next_id()
            emitter.emit(
                _STATEMENT,
                number,
                duration,
                intern(known.template),
                known.operation,
                connection,
                0 if transaction is None else transaction.number,
                rows,
                emitter.stack(),
                arguments,
                purpose.load,
                intern(purpose.relationship) if purpose.relationship else 0,
                purpose.parent,
                0,
                known.paged,
                intern(exception_name(error)) if error is not None else 0,
            )
            if error is None:
                self._transactions.sent(database, transaction, known, number, parameters, rows, many)
        except Exception:
            self.fault()

    # what they are for

    def _fetching(self, original: Callable[..., Any]) -> Callable[..., Any]:
        patches = self._patches

        @functools.wraps(original)
        def fetch_all(queryset: Any) -> Any:
            if queryset._result_cache is not None or not patches.on or not emitter.active():
                return original(queryset)
            purpose = self._asked(_of_manager, queryset)
            if purpose is None:
                return self._transactions.fetching(functools.partial(original, queryset), queryset)
            return _within(
                purpose, self._transactions.fetching, functools.partial(original, queryset), queryset
            )

        return fetch_all

    def _touching(
        self, tell: Callable[[Any, Any], _Purpose | None], original: Callable[..., Any]
    ) -> Callable[..., Any]:
        """A method of a descriptor, which may load what an instance lacks."""
        patches = self._patches

        @functools.wraps(original)
        def touch(descriptor: Any, instance: Any, *rest: Any, **options: Any) -> Any:
            purpose = None
            if instance is not None and patches.on and emitter.active():
                purpose = self._asked(tell, descriptor, instance)
            if purpose is None:
                return original(descriptor, instance, *rest, **options)
            return _within(purpose, original, descriptor, instance, *rest, **options)

        return touch

    def _asked(self, tell: Callable[..., _Purpose | None], *arguments: Any) -> _Purpose | None:
        """What a statement is for, unless something around has a purpose already."""
        try:
            return None if _purpose.get() is not None else tell(*arguments)
        except Exception:
            self.fault()
            return None


def _within(purpose: _Purpose, original: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    token = _purpose.set(purpose)
    try:
        return original(*arguments, **options)
    finally:
        _purpose.reset(token)


def _for(purpose: _Purpose, original: Callable[..., Any]) -> Callable[..., Any]:
    """What is done for a purpose of its own, unless something around has one."""

    @functools.wraps(original)
    def work(*arguments: Any, **options: Any) -> Any:
        if _purpose.get() is not None:
            return original(*arguments, **options)
        return _within(purpose, original, *arguments, **options)

    return work


def _known(sql: Any, vendor: str) -> Known:
    """What is known of a statement. One that the driver composes (psycopg.sql) is not asked for its text."""
    return known_of(None, sql if type(sql) is str else f"({type(sql).__name__})", vendor)


def _identity(instance: Any) -> int:
    """A salted hash of an instance: of its class and key, or of its address where the key is no plain value."""
    meta = instance._meta
    key = plain(instance.__dict__.get(meta.pk.attname))
    return mixed(meta.label, id(instance) if key is None else key)


def _of_field(descriptor: Any, instance: Any) -> _Purpose:
    return _Purpose(
        int(Load.FOREIGN_KEY), f"{type(instance).__name__}.{descriptor.field.name}", _identity(instance)
    )


def _of_reverse(descriptor: Any, instance: Any) -> _Purpose | None:
    related = descriptor.related
    if related.is_cached(instance):
        return None
    return _Purpose(
        int(Load.FOREIGN_KEY), f"{type(instance).__name__}.{related.get_accessor_name()}", _identity(instance)
    )


def _of_column(descriptor: Any, instance: Any) -> _Purpose:
    return _Purpose(
        int(Load.LEFT_OUT), f"{type(instance).__name__}.{descriptor.field.attname}", _identity(instance)
    )


def _of_manager(queryset: Any) -> _Purpose | None:
    """A QuerySet that a related manager made has its instance as a hint."""
    instance = queryset._hints.get("instance")
    if instance is None:
        return None
    return _Purpose(
        int(Load.RELATED_SET),
        f"{type(instance).__name__}.{_accessor(instance, queryset)}",
        _identity(instance),
    )


def _accessor(instance: Any, queryset: Any) -> str:
    """The attribute of an instance that a related manager is reached by."""
    for field in queryset._known_related_objects:
        return str(field.remote_field.get_accessor_name())
    model: Any = type(instance)
    return _many_to_many(model, queryset.model)


@functools.lru_cache(maxsize=1000)
def _many_to_many(model: Any, related: Any) -> str:
    names = [
        field.get_accessor_name() if field.auto_created else field.name
        for field in model._meta.get_fields()
        if field.many_to_many and field.related_model is related
    ]
    return names[0] if len(names) == 1 else f"{related.__name__.lower()}_set"
