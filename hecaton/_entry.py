"""Console scripts. Written in old syntax: checks the Python version first, then loads the real command."""

import sys


def _need_python_311(command):
    # type: (str) -> None
    if sys.version_info < (3, 11):
        sys.stderr.write(
            "%s needs Python 3.11 or newer, this is %d.%d. (hecaton.serverless works here: it is made for images.)\n"
            % ((command,) + sys.version_info[:2])
        )
        raise SystemExit(2)


def client():
    # type: () -> None
    _need_python_311("hecaton")
    from hecaton.cli.main import main

    main()


def server():
    # type: () -> None
    _need_python_311("hecaton-server")
    from hecaton.cli.server import main

    main()


def worker():
    # type: () -> None
    _need_python_311("hecaton-gpu")
    from hecaton.cli.gpu import main

    main()
