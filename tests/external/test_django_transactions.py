"""Races between transactions of Django's ORM, on PostgreSQL and SQLite: each is found, none in its mended twin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

import pyscope
from pyscope.analysis import database_races
from pyscope.events.sql import ROW, TRANSACTION, Step, Touch
from pyscope.findings import Race
from pyscope.trace import Trace
from tests.integration.servers import postgres_server

REPOSITORY = Path(__file__).resolve().parents[2]

MODELS = """
import uuid
from django.db import models

class Account(models.Model):
    owner = models.CharField(max_length=50, default="secret-owner")
    balance = models.IntegerField(default=100)
    note = models.TextField(default="")

class Ward(models.Model):
    beds = models.IntegerField(default=1)

class Doctor(models.Model):
    code = models.UUIDField(primary_key=True, default=uuid.uuid4)
    ward = models.ForeignKey(Ward, models.CASCADE)
    on_call = models.BooleanField(default=True)

class Patient(models.Model):
    name = models.CharField(max_length=50)

class UniquePatient(models.Model):
    name = models.CharField(max_length=50, unique=True)

class Visitor(models.Model):
    seen = models.DateTimeField(null=True)
    visits = models.IntegerField(default=0)
    guide = models.ForeignKey(Doctor, models.CASCADE, null=True)
    changed = models.DateTimeField(auto_now=True)
    day = models.DateField(auto_now=True)
"""

PROGRAM = """
import json, sys, threading
import django
from django.conf import settings

path, name, database, broken = sys.argv[1:]
settings.configure(
    INSTALLED_APPS=["bank"], DEFAULT_AUTO_FIELD="django.db.models.AutoField", USE_TZ=True,
    DATABASES={"default": json.loads(database)},
)
django.setup()
from django.db import connection, transaction
from django.db.models import F, Sum
from django.utils import timezone
from bank.models import Account, Doctor, Patient, UniquePatient, Visitor, Ward

with connection.schema_editor() as editor:
    for model in (Account, Ward, Doctor, Patient, UniquePatient, Visitor):
        editor.create_model(model)
first, second = Account.objects.create(), Account.objects.create()
ward = Ward.objects.create()
visitor = Visitor.objects.create()
doctors = [Doctor.objects.create(ward=ward) for _ in range(2)]
both = threading.Barrier(2)
mine = threading.local()

def meet():
    try:
        both.wait(1.5)
    except threading.BrokenBarrierError:  # the other one waits in the database
        both.reset()

def deposit():
    account = Account.objects.get(pk=first.pk)
    meet()
    account.balance += 10
    account.save()

def deposit_fixed():
    account = Account.objects.get(pk=first.pk)
    meet()
    Account.objects.filter(pk=account.pk).update(balance=F("balance") + 10)

def deposit_of_a_list():
    account = next(iter(Account.objects.filter(owner__startswith="secret").order_by("id")))
    meet()
    account.balance += 10
    account.save(update_fields=["balance"])

def deposit_of_a_list_fixed():
    with transaction.atomic():
        account = Account.objects.select_for_update().filter(owner__startswith="secret").order_by("id")[0]
        meet()
        account.balance += 10
        account.save(update_fields=["balance"])

def deposit_atomic():
    with transaction.atomic():
        account = Account.objects.get(pk=first.pk)
        meet()
        account.balance += 10
        account.save()

def deposit_atomic_fixed():
    with transaction.atomic():
        account = Account.objects.select_for_update().get(pk=first.pk)
        meet()
        account.balance += 10
        account.save()

def seen_now_fixed():
    here = Visitor.objects.get(pk=visitor.pk)
    meet()
    here.seen = timezone.now()
    here.save(update_fields=["seen", "changed", "day"])

def seen_now_and_counted():
    here = Visitor.objects.get(pk=visitor.pk)
    meet()
    here.seen = timezone.now()
    here.visits += 1
    here.save()

def other_column():
    account = Account.objects.get(pk=first.pk)
    meet()
    if mine.number:
        account.balance += 10
    else:
        account.note = "seen"
    account.save()

def other_column_fixed():
    account = Account.objects.get(pk=first.pk)
    meet()
    if mine.number:
        account.balance += 10
        account.save(update_fields=["balance"])
    else:
        account.note = "seen"
        account.save(update_fields=["note"])

def off_call():
    with transaction.atomic():
        if Doctor.objects.filter(ward=ward, on_call=True).count() > 1:
            meet()
            doctor = Doctor.objects.get(pk=doctors[mine.number].pk)
            doctor.on_call = False
            doctor.save()

def off_call_fixed():
    with transaction.atomic():
        Ward.objects.select_for_update().get(pk=ward.pk)
        on_call = Doctor.objects.filter(ward=ward, on_call=True).count()
        meet()
        if on_call > 1:
            doctor = Doctor.objects.get(pk=doctors[mine.number].pk)
            doctor.on_call = False
            doctor.save()

def transfer():
    source = first if mine.number else second
    with transaction.atomic():
        total = sum(Account.objects.get(pk=each.pk).balance for each in (first, second))
        meet()
        account = Account.objects.get(pk=source.pk)
        if total >= 150:
            account.balance -= 150
            account.save(update_fields=["balance"])

def transfer_fixed():
    source = first if mine.number else second
    with transaction.atomic():
        locked = Account.objects.select_for_update()
        total = sum(locked.get(pk=each.pk).balance for each in (first, second))
        meet()
        account = Account.objects.get(pk=source.pk)
        if total >= 150:
            account.balance -= 150
            account.save(update_fields=["balance"])

def admit():
    with transaction.atomic():
        known = Patient.objects.filter(name="secret-name").exists()
        meet()
        if not known:
            Patient.objects.create(name="secret-name")

def admit_fixed():
    UniquePatient.objects.get_or_create(name="secret-name")

def admit_a_second_time_fixed():
    # Both find somebody, and put another one beside them: nothing rests on there being none.
    with transaction.atomic():
        known = Patient.objects.filter(name="first").exists()
        meet()
        if known:
            Patient.objects.create(name="first")

def fallen_back_fixed():
    # What is written over the other's is rolled back, to a savepoint and altogether.
    account = Account.objects.get(pk=first.pk)
    meet()
    try:
        with transaction.atomic():
            try:
                with transaction.atomic():
                    account.balance += 10
                    account.save()
                    raise LookupError
            except LookupError:
                pass
            account.save(update_fields=["note"])
            raise KeyError
    except KeyError:
        pass

def read_again_fixed():
    account = Account.objects.get(pk=first.pk)
    meet()
    with transaction.atomic():
        Account.objects.select_for_update().get(pk=first.pk)
        account.refresh_from_db()
        account.balance += 10
        account.save()

def of_a_signal_fixed():
    # What a signal's receiver writes is not written over what the instance was read with.
    from django.db.models.signals import pre_save
    def count(sender, instance, **_):
        Account.objects.filter(pk=second.pk).update(note="counted")
        Ward.objects.filter(pk=ward.pk).update(beds=2)
    account = Account.objects.get(pk=first.pk)
    meet()
    if mine.number:
        assert others_are_written.wait(30)
        pre_save.connect(count, sender=Account)
        account.note = "saved"
        account.save(update_fields=["note"])
    else:
        Account.objects.filter(pk=second.pk).update(note="other")
        Ward.objects.filter(pk=ward.pk).update(beds=3)
        others_are_written.set()

def one_by_one_fixed():
    with turn:
        with transaction.atomic():
            account = Account.objects.get(pk=first.pk)
            account.balance += 10
            account.save()
        try:
            with transaction.atomic():
                account.delete()
                raise LookupError
        except LookupError:
            pass

turn, others_are_written = threading.Lock(), threading.Event()
work = globals()[name]
Patient.objects.create(name="first")

def run(number):
    mine.number = number
    try:
        work()
    except Exception as error:
        failures.append(type(error).__name__)
    finally:
        connection.close()

failures, faults = [], []
import pyscope
from pyscope.probes import Probe
counted = Probe.fault
Probe.fault = lambda probe: (faults.append(repr(sys.exc_info()[1])), counted(probe))
if broken:
    from pyscope.probes.django_transactions import Transactions
    def fail(*_, **__):
        raise MemoryError
    setattr(Transactions, broken, fail)
with pyscope.record(path, modules=["__main__"], probes=["django"], ring_mb=4):
    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(json.dumps({
    "faults": faults, "failures": failures,
    "balances": list(Account.objects.order_by("id").values_list("balance", flat=True)),
    "notes": Account.objects.get(pk=first.pk).note, "on_call": Doctor.objects.filter(on_call=True).count(),
    "visits": Visitor.objects.get(pk=visitor.pk).visits,
    "patients": Patient.objects.filter(name="secret-name").count(),
}))
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model
from django.db.models.sql.compiler import SQLCompiler
kept = [BaseDatabaseWrapper.set_autocommit, BaseDatabaseWrapper._commit, BaseDatabaseWrapper._rollback,
        BaseDatabaseWrapper._savepoint, Model.save_base, Model.refresh_from_db, SQLCompiler.has_results]
assert all("pyscope" not in function.__code__.co_filename for function in kept)
assert Model.save_base.alters_data
"""


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("django")
    (folder / "bank").mkdir()
    (folder / "bank" / "__init__.py").write_text("")
    (folder / "bank" / "models.py").write_text(MODELS)
    (folder / "program.py").write_text(PROGRAM)
    return folder


@pytest.fixture(scope="module")
def postgres() -> Iterator[Any]:
    with postgres_server() as server:
        yield server


def sqlite(folder: Path, name: str) -> dict[str, Any]:
    file = folder / f"{name}.sqlite3"
    file.unlink(missing_ok=True)
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file), "OPTIONS": {"timeout": 30}}


def postgresql(server: Any) -> dict[str, Any]:
    given = conninfo_to_dict(server.new_database())
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": given["dbname"],
        "USER": given.get("user", ""),
        "PASSWORD": given.get("password", ""),
        "HOST": given.get("host", ""),
        "PORT": given.get("port", ""),
    }


def run(bank: Path, name: str, database: dict[str, Any], broken: str = "") -> tuple[dict[str, Any], Trace]:
    path = bank / f"{name}.pyscope"
    done = subprocess.run(
        [sys.executable, "program.py", str(path), name, json.dumps(database), broken],
        cwd=bank,
        env={**os.environ, "PYTHONPATH": f"{bank}:{REPOSITORY}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result["faults"]) == ({"MemoryError()"} if broken else set())
    assert result["failures"] == []
    return result, pyscope.load(path)


def races(trace: Trace) -> list[Race]:
    found = database_races.find(trace)
    for race in found:
        assert all(access.location.file.endswith("program.py") for access in race.accesses)
        assert len({access.thread for access in race.accesses}) == 2
    return found


LOST = "bank_account.balance,note,owner"
FORMS = {
    "deposit": ("lost_update", LOST),
    "deposit_of_a_list": ("lost_update", "bank_account.balance"),
    "deposit_atomic": ("lost_update", LOST),
    "other_column": ("lost_update", LOST),
    "seen_now_and_counted": ("lost_update", "bank_visitor.guide_id,visits"),
    "off_call": ("write_skew", "bank_doctor.on_call,ward_id"),
    "transfer": ("write_skew", "bank_account.balance"),
    "admit": ("check_then_act", "bank_patient.name"),
}
FIXED = [
    *(f"{form}_fixed" for form in FORMS if form != "seen_now_and_counted"),
    "seen_now_fixed",
    "admit_a_second_time_fixed",
    "fallen_back_fixed",
    "read_again_fixed",
    "of_a_signal_fixed",
    "one_by_one_fixed",
]


def is_wrong(form: str, result: dict[str, Any]) -> bool:
    """Whether the database shows the harm."""
    balance = result["balances"][0]
    return bool(
        {
            "deposit": balance == 110,
            "deposit_of_a_list": balance == 110,
            "deposit_atomic": balance == 110,
            "other_column": balance == 100 or result["notes"] == "",
            "seen_now_and_counted": result["visits"] == 1,
            "off_call": result["on_call"] == 0,
            "transfer": sum(result["balances"]) < 0,
            "admit": result["patients"] == 2,
        }[form]
    )


@pytest.mark.parametrize("form", FORMS)
def test_each_race_is_found_where_the_database_is_wrong(bank: Path, postgres: Any, form: str) -> None:
    result, trace = run(bank, form, postgresql(postgres))
    assert is_wrong(form, result)
    [race] = races(trace)
    kind, subject = FORMS[form]
    assert (race.kind, race.grade) == (kind, "observed")
    assert race.subject in (
        subject,
        subject.replace("guide_id,", ""),
    )  # before Django 6 a NULL is not a parameter
    assert {access.location.function.split(".")[0] for access in race.accesses} == {form}
    assert "_id = " not in race.suggestion


@pytest.mark.parametrize("form", FIXED)
def test_none_is_found_in_its_mended_twin(bank: Path, postgres: Any, form: str) -> None:
    result, trace = run(bank, form, postgresql(postgres))
    if form.removesuffix("_fixed") in FORMS:
        assert not is_wrong(form.removesuffix("_fixed"), result)
    assert races(trace) == []


@pytest.mark.parametrize("form", ["deposit", "other_column"])
def test_connections_that_commit_by_themselves_on_sqlite(bank: Path, form: str) -> None:
    result, trace = run(bank, form, sqlite(bank, form))
    assert is_wrong(form, result)
    [race] = races(trace)
    assert (race.kind, race.subject, race.grade) == (*FORMS[form], "observed")
    assert "F('balance')" in race.suggestion
    assert "select_for_update()" in race.suggestion
    assert races(run(bank, f"{form}_fixed", sqlite(bank, form))[1]) == []


def test_steps_and_rows_are_told_without_values(bank: Path, postgres: Any) -> None:
    _, trace = run(bank, "fallen_back_fixed", postgresql(postgres))
    steps = [row.step for row in trace.probe_events(TRANSACTION).records() if row.thread == 1]
    assert steps == [Step.BEGIN, Step.SAVEPOINT, Step.ROLLBACK_TO, Step.RELEASE, Step.ROLLBACK]
    assert len(trace.probe_events(ROW)) == 0  # nothing of it holds
    _, trace = run(bank, "deposit_atomic", postgresql(postgres))
    rows = list(trace.probe_events(ROW).records())
    assert {row.touch for row in rows} == {Touch.READ_KEY, Touch.WRITE}
    assert {str(row.table) for row in rows} == {"bank_account"}
    assert b"secret-owner" not in Path(trace.path).read_bytes()


@pytest.mark.parametrize(
    "broken", ["begun_for", "sent", "_fetched", "_of", "_begin", "_committed", "_rolled_back", "_tell"]
)
def test_what_fails_in_the_probe_leaves_the_program_alone(bank: Path, broken: str) -> None:
    result, _ = run(bank, "one_by_one_fixed", sqlite(bank, "broken"), broken)
    assert result["balances"] == [120, 100]
