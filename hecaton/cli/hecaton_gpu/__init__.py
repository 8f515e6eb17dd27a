"""The command `hecaton-gpu`, on the machine with the cards.

- `main`: `hecaton-gpu`: runs the worker of this machine in the foreground, or as a systemd service.
- `mount`: `hecaton-gpu mount`: which folders of this machine jobs may ask for, and under which names.
- `options`: What `hecaton-gpu run` and `install` are told about the worker: the options, and how they are read.
- `worker`: What `hecaton-gpu run` and `install` do: register this machine once, look around, build the worker and run
  it.
"""
