"""The tools a user would pick instead, each switched on and off within the process that is measured.

They run as their manuals say, with what they gather thrown away at the end: saving it is measured apart.
"""

from __future__ import annotations

import gc
import importlib.util
import threading
import warnings
from collections.abc import Callable
from typing import Any, Final

Off = Callable[[], dict[str, float]]

VIZTRACER: Final = "VizTracer"
VIZTRACER_NO_C: Final = "VizTracer without C functions"
OPENTELEMETRY: Final = "OpenTelemetry (FastAPI + SQLAlchemy)"
PYINSTRUMENT_SECONDS: Final = 0.001  # its default interval


def available(name: str) -> bool:
    """Whether the peer is installed."""
    return importlib.util.find_spec(_MODULES[name]) is not None


def _viztracer(**options: Any) -> Off:
    from viztracer import VizTracer

    # It takes a switch of greenlets for a wrong return, says so in a warning, and stops.
    threads = threading.getprofile()
    listening = warnings.catch_warnings(record=True)
    complaints = listening.__enter__()
    warnings.simplefilter("always", RuntimeWarning)
    tracer = VizTracer(verbose=0, **options)
    tracer.start()

    def off() -> dict[str, float]:
        tracer.stop()
        tracer.clear()
        tracer.terminate()
        threading.setprofile(threads)  # type: ignore[arg-type]  # which it leaves set before 3.12
        listening.__exit__(None, None, None)
        stopped = any("tracing is stopped" in str(item.message) for item in complaints or ())
        return {"stopped by itself": float(stopped)}

    return off


def _cprofile() -> Off:
    import cProfile

    profile = cProfile.Profile()
    profile.enable()

    def off() -> dict[str, float]:
        profile.disable()
        return {}

    return off


def _yappi() -> Off:
    import yappi

    yappi.set_clock_type("cpu")
    yappi.start()

    def off() -> dict[str, float]:
        yappi.stop()
        yappi.clear_stats()
        return {}

    return off


def _pyinstrument() -> Off:
    from pyinstrument import Profiler

    # Not "enabled": it would follow one asynchronous context only, that of the switch.
    profiler = Profiler(interval=PYINSTRUMENT_SECONDS, async_mode="disabled")
    profiler.start()

    def off() -> dict[str, float]:
        profiler.stop()
        return {}

    return off


def _opentelemetry() -> Off:
    """Spans of requests and statements, batched and given to an exporter that drops them: its least cost."""
    from fastapi import FastAPI
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Dropped(SpanExporter):
        spans = 0

        def export(self, spans: Any) -> SpanExportResult:
            self.spans += len(spans)
            return SpanExportResult.SUCCESS

    # isinstance would wake lazy proxies
    found = [item for item in gc.get_objects() if issubclass(type(item), FastAPI)]
    apps = [app for app in found if hasattr(app.state, "taskflow")]
    databases = [app.state.taskflow.database for app in apps]
    engines = [
        engine for database in databases for engine in (database.engine.sync_engine, database.sync.engine)
    ]
    exporter, provider = Dropped(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    statements: Any = SQLAlchemyInstrumentor()
    # It declares SQLAlchemy < 2.1 and works with 2.1 as well.
    statements.instrument(engines=engines, tracer_provider=provider, skip_dep_check=True)
    for app in apps:
        FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
        app.middleware_stack = app.build_middleware_stack()  # of an app that runs already

    def off() -> dict[str, float]:
        for app in apps:
            FastAPIInstrumentor.uninstrument_app(app)
        statements.uninstrument()
        provider.shutdown()
        if not exporter.spans:
            raise RuntimeError("OpenTelemetry made no spans")
        return {"events": float(exporter.spans)}

    return off


_MODULES: Final = {
    VIZTRACER: "viztracer",
    VIZTRACER_NO_C: "viztracer",
    "cProfile": "cProfile",
    "yappi": "yappi",
    "pyinstrument": "pyinstrument",
    OPENTELEMETRY: "opentelemetry.instrumentation.sqlalchemy",
}
SWITCHES: Final[dict[str, Callable[[], Off]]] = {
    VIZTRACER: _viztracer,
    VIZTRACER_NO_C: lambda: _viztracer(ignore_c_function=True),
    "cProfile": _cprofile,
    "yappi": _yappi,
    "pyinstrument": _pyinstrument,
    OPENTELEMETRY: _opentelemetry,
}
