import os

bind = os.environ.get("BIND", "127.0.0.1:8000")
workers = 2


def post_fork(server, worker):
    """Each worker has a flight recorder of its own, whatever started the master."""
    import pyscope

    try:
        pyscope.start(mode="flight", modules=["shop", "shop_wsgi"], probes=["auto"], ring_mb=16)
    except pyscope.errors.PyScopeError as error:
        worker.log.warning("PyScope does not record this worker: %s", error)
