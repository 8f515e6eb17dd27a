"""The command `hecaton-server`.

- `main`: `hecaton-server`: runs the server in the foreground, or installs it as a systemd service.
- `unit`: `hecaton-server install|uninstall`: the server as a systemd service.
"""
