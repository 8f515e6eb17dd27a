"""Console scripts. Written in old syntax: checks Python and system first, then loads the real command."""

import sys


def _need_python_311(command):
    # type: (str) -> None
    if sys.version_info < (3, 11):
        sys.stderr.write(
            f"{command} needs Python 3.11 or newer, this is {sys.version_info[0]}.{sys.version_info[1]}."
            " (hecaton.serverless works here: it is made for images.)\n"
        )
        raise SystemExit(2)


def _need_system(command, systems, names):
    # type: (str, tuple[str, ...], str) -> None
    if not sys.platform.startswith(systems):
        sys.stderr.write(f"{command} runs on {names}; on this system ({sys.platform}) there is the client: hecaton.\n")
        raise SystemExit(2)


def client():
    # type: () -> None
    _need_python_311("hecaton")
    from hecaton.cli.hecaton.main import main

    main()


def server():
    # type: () -> None
    _need_python_311("hecaton-server")
    _need_system("hecaton-server", ("linux", "darwin"), "Linux and macOS")
    from hecaton.cli.hecaton_server.main import main

    main()


def worker():
    # type: () -> None
    _need_python_311("hecaton-gpu")
    _need_system("hecaton-gpu", ("linux",), "Linux, also inside WSL 2")
    from hecaton.cli.hecaton_gpu.main import main

    main()
