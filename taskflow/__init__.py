"""TaskFlow: a small but realistic task-tracking service, and the one PyScope is proved on.

`data` holds models, queries and the repository; `web` the FastAPI application over them. Around
these stand the settings, the faults that can be asked for by name, the seeds, the load driver and
the demo. Run it with `python -m taskflow`.
"""
