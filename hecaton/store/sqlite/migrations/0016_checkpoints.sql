-- The newest complete checkpoint of a job: what its next attempt begins with, and a job that repeats it. `files` says in
-- which blobs the bytes are (JSON). Attempt 0: it is that of the job that is repeated.

CREATE TABLE checkpoint (
  seq INTEGER PRIMARY KEY REFERENCES job (seq) ON DELETE CASCADE,
  attempt INTEGER NOT NULL,
  made_at REAL NOT NULL,
  files BLOB NOT NULL
);

-- Which blobs it needs: for cleaning, which looks for blobs that nobody needs.
CREATE TABLE checkpoint_blob (
  seq INTEGER NOT NULL REFERENCES job (seq) ON DELETE CASCADE,
  sha256 TEXT NOT NULL,
  PRIMARY KEY (seq, sha256)
) WITHOUT ROWID;
CREATE INDEX checkpoint_blob_sha256 ON checkpoint_blob (sha256);

ALTER TABLE job ADD COLUMN checkpoint INTEGER NOT NULL DEFAULT 0;
