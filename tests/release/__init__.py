"""A release, made and looked at from outside: `make dist`, or `python -m tests.release`.

artefacts     wheel and source distribution: how they are built, and what must be in them
installers    pip, pipx and uv, each in a home of its own
notes         what the changelog says about the newest version
"""
