"""Who may come in, and what an admin has registered: users, images, workers.

- `audit`: Who came in, who was refused, and what was changed for others: one line each in the server's log.
- `auth`: Who is calling: passwords (argon2id), people's tokens (JWT) and workers' tokens (256 random bits, stored as
  SHA-256).
- `homes`: Where each user's password was right: in memory for every look, and in the store for good.
- `keys`: Keys: what lets in whoever holds it, once and within an hour. They stand in the lines that people paste.
- `logins`: Whether a password is right, for as many as may ask at a time.
- `throttle`: Wrong passwords: how many one may try, by whom they are for, where they come from, and in all.
- `directory`: Use cases around users, images and workers.
- `entries`: Which image a name means, and for whom.
- `permissions`: Who may do what: one table of roles and actions. What is not in it is refused, and so is a role without
  a row.
- `questions`: One question over HTTP to somebody who is not trusted, such as a registry: bounded in time and bytes, and
  asked only where it may go.
- `resolver`: What the name of an image means: its registry is asked, and where that is closed, the workers with their
  logins.
- `registry`: Asks an image's registry whether the image exists, and for its digest (OCI distribution spec 1.1, `HEAD
  /v2/…/manifests/…`).
"""
