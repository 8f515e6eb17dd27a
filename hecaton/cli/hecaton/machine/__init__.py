"""The first minutes: a server and its worker on this machine, and other machines that join.

- `join`: `hecaton join LINE`: address, certificate and login in one paste.
"""
