"""The command `hecaton-server`.

- `admin`: `hecaton-server admin-password`: a way back in for who has lost the password, and sits at the server's
  machine.
- `certificate`: The server's own certificate: made once, signed by itself, and trusted by its fingerprint.
- `main`: `hecaton-server`: runs the server in the foreground, or installs it as a systemd service.
- `unit`: `hecaton-server install|uninstall`: the server as a systemd service.
- `values`: Kinds of values that the server's options have: as they are typed, and as they are kept.
"""
