"""The command `hecaton`: its tree, and what every command line knows.

- `completers`: Names from the live server, for completion in shells and in the interactive shell.
- `completion`: `hecaton completion SHELL`, and the answers to the scripts that it prints.
- `context`: What one command line knows: which server it means, whether it answers in JSON, and how it gets its client.
- `habits`: What people type whom other programs have taught it, and the line that does it here.
- `holders`: Who works on a machine, in one line: what everybody may know of a job.
- `main`: The command `hecaton`: the root of its command tree, and the one place where errors become exit codes.
- `project`: `hecaton.toml` in the folder where `hecaton run` is typed: what one would type there each time.
- `shell`: `hecaton` without a command: the interactive shell, or, when stdin is no terminal, one command line after
  another.
- `tree`: The click classes of the command tree: nouns load when they are used; every command takes --json and --server.
- `why`: `hecaton why`: why a job waits, what it does, or why it failed: one answer.
- `demo/`: `hecaton demo`.
- `files/`: Commands about folders and files of jobs.
- `jobs/`: My work.
- `machine/`: The first minutes: a server and its worker on this machine, and other machines that join.
- `nouns/`: What there is, and people.
"""
