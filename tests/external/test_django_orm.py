"""Django's ORM: its N+1 queries in each form, their mended twins, and the ORM as it was without the probe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pyscope
from pyscope.analysis import queries
from pyscope.events.sql import STATEMENT, Operation
from pyscope.findings import PerformanceIssue
from pyscope.trace import Trace

REPOSITORY = Path(__file__).resolve().parents[2]
MANY = 8

MODELS = """
import uuid
from django.db import models

class Owner(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=50)

class Profile(models.Model):
    owner = models.OneToOneField(Owner, models.CASCADE)
    text = models.TextField()

class Project(models.Model):
    owner = models.ForeignKey(Owner, models.CASCADE, related_name="projects")
    name = models.CharField(max_length=50)

class Tag(models.Model):
    name = models.CharField(max_length=50)

class Task(models.Model):
    project = models.ForeignKey(Project, models.CASCADE, related_name="tasks")
    title = models.CharField(max_length=50)
    text = models.TextField(default="")
    tags = models.ManyToManyField(Tag)
"""

PROGRAM = """
import json, sys
import django
from django.conf import settings

path, probes, name, many = sys.argv[1:]
settings.configure(
    INSTALLED_APPS=["shop"], DEFAULT_AUTO_FIELD="django.db.models.AutoField", USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()
from django.db import connection
from django.db.models import Count, Prefetch
from shop.models import Owner, Profile, Project, Tag, Task

with connection.schema_editor() as editor:
    for model in (Owner, Profile, Project, Tag, Task):
        editor.create_model(model)
for number in range(int(many)):
    owner = Owner.objects.create(name=f"secret-{number}")
    Profile.objects.create(owner=owner, text="about")
    project = Project.objects.create(owner=owner, name=f"project {number}")
    tag = Tag.objects.create(name=f"tag {number}")
    for of in range(2):
        Task.objects.create(project=project, title=f"task {number}.{of}").tags.add(tag)

def foreign_key():
    return [task.project.name for task in Task.objects.order_by("id")]

def foreign_key_fixed():
    return [task.project.name for task in Task.objects.select_related("project").order_by("id")]

def related_set():
    return [len(project.tasks.all()) for project in Project.objects.order_by("id")]

def related_set_fixed():
    return [len(project.tasks.all()) for project in Project.objects.prefetch_related("tasks").order_by("id")]

def filtered_set():
    return [[t.title for t in p.tasks.filter(title__endswith="1")] for p in Project.objects.order_by("id")]

def filtered_set_fixed():
    ones = Prefetch("tasks", queryset=Task.objects.filter(title__endswith="1"), to_attr="ones")
    return [[t.title for t in p.ones] for p in Project.objects.prefetch_related(ones).order_by("id")]

def many_to_many():
    return [[tag.name for tag in task.tags.all()] for task in Task.objects.order_by("id")]

def many_to_many_fixed():
    return [[tag.name for tag in task.tags.all()] for task in Task.objects.prefetch_related("tags").order_by("id")]

def other_side():
    return [owner.profile.text for owner in Owner.objects.order_by("name")]

def other_side_fixed():
    return [owner.profile.text for owner in Owner.objects.select_related("profile").order_by("name")]

def left_out():
    return [task.title for task in Task.objects.only("text").order_by("id")]

def left_out_fixed():
    return [task.title for task in Task.objects.only("text", "title").order_by("id")]

def get_loop():
    keys = list(Task.objects.order_by("id").values_list("id", flat=True))
    return [Task.objects.get(pk=key).title for key in keys]

def get_loop_fixed():
    keys = list(Task.objects.order_by("id").values_list("id", flat=True))
    found = Task.objects.in_bulk(keys)
    return [found[key].title for key in keys]

def counted():
    return [project.tasks.count() for project in Project.objects.order_by("id")]

def counted_fixed():
    return [project.count for project in Project.objects.annotate(count=Count("tasks")).order_by("id")]

def by_hand():
    found = []
    for project in Project.objects.order_by("id").values_list("id", flat=True):
        with connection.cursor() as cursor:
            cursor.execute("SELECT title FROM shop_task WHERE project_id = %s ORDER BY id", [project])
            found.append([row[0] for row in cursor.fetchall()])
    return found

def by_hand_fixed():
    with connection.cursor() as cursor:
        cursor.execute("SELECT project_id, title FROM shop_task ORDER BY id")
        rows = cursor.fetchall()
    return [[t for p, t in rows if p == project] for project in dict.fromkeys(p for p, _ in rows)]

def refused():
    from django.db import OperationalError
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT title FROM nowhere WHERE secret = %s", ["secret-value"])
    except OperationalError as error:
        return str(error)

def everything():
    return [globals()[name]() for name in sorted(globals()) if name.endswith("_fixed")]

work = globals()[name]
if probes == "none":
    print(json.dumps(work()))
else:
    import pyscope
    if probes == "broken":
        from pyscope.probes import django as probe
        def broken(*_):
            raise MemoryError
        for function in ("_known", "_of_manager", "_of_field", "_of_reverse", "_of_column"):
            setattr(probe, function, broken)
        probes = "auto"
    with pyscope.record(path, modules=["__main__", "shop"], probes=[probes], ring_mb=4):
        result = work()
    print(json.dumps(result))
    from django.db.backends.utils import CursorWrapper
    from django.db.models.query import QuerySet
    kept = [CursorWrapper._execute, CursorWrapper._executemany, QuerySet._fetch_all, QuerySet.get]
    assert all(function.__module__.startswith("django.") and "pyscope" not in function.__code__.co_filename
               for function in kept)
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("django")
    (folder / "shop").mkdir()
    (folder / "shop" / "__init__.py").write_text("")
    (folder / "shop" / "models.py").write_text(MODELS)
    (folder / "program.py").write_text(PROGRAM)
    return folder


def run(shop: Path, name: str, probes: str = "auto", many: int = MANY) -> tuple[Any, Trace | None]:
    path = shop / f"{name}-{probes}-{many}.pyscope"
    done = subprocess.run(
        [sys.executable, "program.py", str(path), probes, name, str(many)],
        cwd=shop,
        env={**os.environ, "PYTHONPATH": f"{shop}:{REPOSITORY}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), None if probes == "none" else pyscope.load(path)


def found(shop: Path, name: str, many: int = MANY) -> list[PerformanceIssue]:
    result, trace = run(shop, name, many=many)
    assert trace is not None
    assert result == run(shop, name, "none", many)[0]
    return list(queries.find(trace))


FORMS = {
    "foreign_key": ("Task.project", "scalar", "select_related('project')"),
    "related_set": ("Project.tasks", "collection", "prefetch_related('tasks')"),
    "filtered_set": ("Project.tasks", "collection", "Prefetch('tasks'"),
    "many_to_many": ("Task.tags", "collection", "prefetch_related('tags')"),
    "other_side": ("Owner.profile", "scalar", "select_related('profile')"),
    "left_out": ("Task.title", "deferred", "only()"),
    "get_loop": ("", "get", "in_bulk(keys)"),
    "counted": ("", "statement", "GROUP BY"),
    "by_hand": ("", "statement", "IN (…)"),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_found_with_its_attribute_place_and_cure(shop: Path, form: str) -> None:
    relationship, cause, cure = FORMS[form]
    [issue] = found(shop, form)
    assert (issue.kind, issue.relationship, issue.cause) == ("n_plus_one_query", relationship, cause)
    assert (
        issue.query_count
        == issue.parents
        == (2 * MANY if "Task" in relationship or form == "get_loop" else MANY)
    )
    assert cure in issue.suggestion
    assert issue.call_site.function.split(".")[0] == form
    assert issue.call_site.file.endswith("program.py")
    assert issue.statement.startswith("SELECT")
    assert issue.total_ms > 0


@pytest.mark.parametrize("form", FORMS)
def test_none_is_found_in_its_mended_twin(shop: Path, form: str) -> None:
    assert found(shop, f"{form}_fixed") == []


def test_one_below_the_threshold_is_none(shop: Path) -> None:
    assert found(shop, "related_set", many=queries.THRESHOLD - 1) == []
    assert len(found(shop, "related_set", many=queries.THRESHOLD)) == 1


def test_statements_are_recorded_without_their_values(shop: Path) -> None:
    message, trace = run(shop, "refused")
    assert "no such table" in message
    assert trace is not None
    [row] = trace.probe_events(STATEMENT).records()
    assert row.statement == "SELECT title FROM nowhere WHERE secret = ?"
    assert (row.operation, row.error, row.rows) == (Operation.SELECT, "OperationalError", -1)
    recording = Path(trace.path).read_bytes()
    assert b"secret-value" not in recording
    assert b"secret-0" not in recording


def test_all_fixed_twins_together_are_as_without_the_probe(shop: Path) -> None:
    assert found(shop, "everything") == []


@pytest.mark.parametrize("form", ["foreign_key", "many_to_many", "other_side", "left_out", "everything"])
def test_a_probe_that_fails_each_time_takes_itself_out_and_the_program_is_unharmed(
    shop: Path, form: str
) -> None:
    result, trace = run(shop, form, "broken")
    assert result == run(shop, form, "none")[0]
    assert trace is not None
    assert queries.find(trace) == []


def test_the_probe_by_its_name_alone(shop: Path) -> None:
    result, trace = run(shop, "related_set", "django")
    assert result == [2] * MANY
    assert trace is not None
    assert len(queries.find(trace)) == 1
