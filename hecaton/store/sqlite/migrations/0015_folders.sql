-- Folders that users send along. The manifest is a blob, and its sha256 the folder's name.

CREATE TABLE folder (
  id INTEGER PRIMARY KEY,
  sha256 TEXT NOT NULL,
  owner_id INTEGER NOT NULL REFERENCES user (id),
  added_at REAL NOT NULL,
  UNIQUE (sha256, owner_id)
);

-- Which blobs a folder needs, that of its manifest among them: for cleaning, which looks for blobs that nobody needs.
CREATE TABLE folder_blob (
  folder INTEGER NOT NULL REFERENCES folder (id) ON DELETE CASCADE,
  sha256 TEXT NOT NULL,
  PRIMARY KEY (folder, sha256)
) WITHOUT ROWID;
CREATE INDEX folder_blob_sha256 ON folder_blob (sha256);

-- Small files that came together in one blob: where in it they are.
CREATE TABLE bundled (
  sha256 TEXT NOT NULL,
  owner_id INTEGER NOT NULL REFERENCES user (id),
  blob TEXT NOT NULL,
  start INTEGER NOT NULL,
  size INTEGER NOT NULL,
  PRIMARY KEY (sha256, owner_id)
) WITHOUT ROWID;
CREATE INDEX bundled_blob ON bundled (blob);

-- Jobs that have one.
CREATE TABLE job_folder (
  seq INTEGER PRIMARY KEY REFERENCES job (seq) ON DELETE CASCADE,
  sha256 TEXT NOT NULL
);
CREATE INDEX job_folder_sha256 ON job_folder (sha256);
