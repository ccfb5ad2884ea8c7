"""The web layer: a FastAPI application over the repository, and the server that runs it."""
