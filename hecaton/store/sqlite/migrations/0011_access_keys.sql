-- What lets in whoever holds it, once and for an hour: a line to paste. It holds as long as the tokens of its maker do.

CREATE TABLE access_key (
  hash BLOB PRIMARY KEY,
  scope TEXT NOT NULL,
  user_id INTEGER NOT NULL REFERENCES user (id),
  token_version INTEGER NOT NULL,
  expires_at REAL NOT NULL
) WITHOUT ROWID;
