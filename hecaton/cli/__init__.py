"""The three commands. Each parses, makes one call, and shows the answer; what they share is here.

- `duration`: Durations as people write them on a command line: `90`, `15m`, `2h`, `1d`.
- `first_contact`: The first time that this machine sees a server: how to speak with it, and whom to trust from then
  on.
- `interrupts`: Ctrl-C and SIGTERM, held back where they would tear in two what belongs together.
- `log_lines`: How server and worker log: one line per event on stderr: time, level, a sentence, key=value.
- `output`: Results to stdout, talk and errors to stderr, and the one table of exit codes.
- `suggestions`: What a word that nobody knows may have meant: near names, and lines that other programs have taught
  people.
- `terminal`: Text for terminals: what comes from outside is made harmless, times and sizes become readable, tables fit
  the width.
- `units`: Services of systemd: unit files and what is done with them.
- `hecaton/`: The command `hecaton`.
- `hecaton_gpu/`: The command `hecaton-gpu`, on the machine with the cards.
- `hecaton_server/`: The command `hecaton-server`.
"""
