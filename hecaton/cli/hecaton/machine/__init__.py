"""The first minutes: a server and its worker on this machine, and other machines that join.

- `foreground`: `hecaton up --foreground`: server and worker as child processes, until Ctrl-C. Their data stays.
- `join`: `hecaton join LINE`: address, certificate and login in one paste.
- `person`: Who has typed `hecaton up`: is logged in on this machine by it, and goes on with `hecaton run`.
- `place`: Puts this very installation where services and sudo find it: /opt/hecaton, with links in /usr/local/bin.
- `services`: `hecaton up`: server and worker as services of systemd, from /opt/hecaton.
- `site`: A server on this machine, as its administrator sees it: its certificate, its admin, and the lines to join it.
- `up`: `hecaton up`: this machine becomes a server and its first worker.
"""
