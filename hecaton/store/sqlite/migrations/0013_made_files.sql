-- The files that attempts have made. Their bytes are in blobs: `pieces` says where (JSON: [blob, start, size], ...).

CREATE TABLE made_file (
  seq INTEGER NOT NULL REFERENCES job (seq) ON DELETE CASCADE,
  attempt INTEGER NOT NULL,
  number INTEGER NOT NULL,
  path TEXT NOT NULL,
  size INTEGER NOT NULL,
  sha256 TEXT NOT NULL,
  executable INTEGER NOT NULL,
  pieces BLOB NOT NULL,
  why TEXT NOT NULL,  -- not empty: it is not kept, and this is why
  PRIMARY KEY (seq, attempt, number)
) WITHOUT ROWID;

-- Which blobs an attempt's files need: for cleaning, which looks for blobs that nobody needs.
CREATE TABLE made_blob (
  seq INTEGER NOT NULL REFERENCES job (seq) ON DELETE CASCADE,
  attempt INTEGER NOT NULL,
  sha256 TEXT NOT NULL,
  PRIMARY KEY (seq, attempt, sha256)
) WITHOUT ROWID;
CREATE INDEX made_blob_sha256 ON made_blob (sha256);
