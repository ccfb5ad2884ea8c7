"""The page of an annual report: one HTML file with its chart inside. Only the report process imports this."""

from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import jinja2
import matplotlib

matplotlib.use("Agg")  # no display, no toolkit

from matplotlib.figure import Figure

TEMPLATE: Final = "annual_report.html"
WIDTH_INCHES: Final = 10
HEIGHT_INCHES: Final = 4


def page(figures: dict[str, Any]) -> str:
    """The report as HTML. Names and words come from users, so everything is escaped."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return templates.get_template(TEMPLATE).render(figures, chart=b64encode(chart(figures)).decode("ascii"))


def chart(figures: dict[str, Any]) -> bytes:
    """A PNG: tasks created, completed and late by month, and the median cycle time over them."""
    months = figures["months"]
    names = [month["month"][-2:] for month in months]
    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), layout="constrained")
    counts = figure.subplots()
    for offset, (name, colour) in enumerate(
        [("created", "#4477aa"), ("completed", "#228833"), ("late", "#ee6677")]
    ):
        places = [place + (offset - 1) * 0.28 for place in range(len(months))]
        counts.bar(places, [month[name] for month in months], width=0.28, label=name, color=colour)
    counts.set_xticks(range(len(months)), names)
    counts.set_xlabel(f"month of {figures['year']}")
    counts.set_ylabel("tasks")
    counts.legend(loc="upper left")
    days = counts.twinx()
    median = [month["cycle_days"]["p50"] for month in months]
    days.plot(range(len(months)), [float("nan") if day is None else day for day in median], "k.-")
    days.set_ylabel("median days to completion")
    days.set_ylim(bottom=0)
    picture = BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()
