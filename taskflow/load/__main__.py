"""`python -m taskflow.load URL …`: one load, in a process that gevent may patch as it likes."""

import sys

from gevent import monkey

# Before everything else: modules that have taken the unpatched socket or lock would block all clients.
monkey.patch_all()

from taskflow.load.driver import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
