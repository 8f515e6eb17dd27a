"""What there is, and people: one file per noun.

- `envfile`: Reads env files as people write them, for `hecaton image update --fp`.
- `image_options`: The options that an image has for those of its jobs that ask for nothing else: flags made from
  `core.options`.
- `images`: `hecaton image`: new, list, update, show, delete.
- `machine`: How `hecaton worker show` shows a machine: its cards, what they do, and who works there.
- `servers`: `hecaton server`: the servers that this machine knows, their tokens, and which of them commands mean.
- `usage`: `hecaton usage`: what one has stored and waiting, and may have; for admins, what everybody has.
- `users`: `hecaton user`: create, list, delete, passwd.
- `workers`: `hecaton worker`: list, show, drain, undrain, remove.
"""
