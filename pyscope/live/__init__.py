"""The live dashboard: what a running service does, within a tenth of a second, in a browser.

pyscope.live.mount(app, "/admin/pyscope")     # in a service, of the service itself
pyscope live FILE|DIR|PID                     # stand-alone, of another process or a recording
"""

from __future__ import annotations

from pyscope.errors import MissingExtra

try:
    import fastapi  # noqa: F401
except ImportError as error:
    raise MissingExtra("The live dashboard", error.name or "fastapi", "live") from None

from pyscope.live.mounting import Dashboard, create_app, mount

__all__ = ["Dashboard", "create_app", "mount"]
