-- Times are seconds since the epoch (REAL), sizes bytes. Deleted users, images and workers stay as rows with a flag, so
-- that the names on old jobs remain readable; the partial unique indexes let their names be used again.

CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
);

CREATE TABLE user (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,
  name_key TEXT NOT NULL,  -- case-folded: `Ann` and `ann` are one person
  role TEXT NOT NULL,
  password_hash TEXT NOT NULL,
  token_version INTEGER NOT NULL DEFAULT 0,
  created_at REAL NOT NULL,
  deleted INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX user_name ON user (name_key) WHERE deleted = 0;

CREATE TABLE image (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,
  digest TEXT,
  description TEXT NOT NULL,
  env TEXT NOT NULL DEFAULT '{}',  -- JSON object of strings
  env_revision INTEGER NOT NULL DEFAULT 0,
  created_at REAL NOT NULL,
  updated_at REAL NOT NULL,
  deleted INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX image_name ON image (name) WHERE deleted = 0;

CREATE TABLE worker (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  registered_by TEXT NOT NULL,
  token_hash BLOB NOT NULL,
  created_at REAL NOT NULL,
  last_seen REAL NOT NULL,
  removed INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX worker_name ON worker (name) WHERE removed = 0;
CREATE UNIQUE INDEX worker_token ON worker (token_hash);

-- A job with its latest attempt. Earlier attempts are in `attempt`; inline bytes in `payload` and `result`, so that
-- scans and updates of jobs do not drag them along.
CREATE TABLE job (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,  -- the job's index; AUTOINCREMENT: never used again, whatever is deleted
  state TEXT NOT NULL,
  owner_id INTEGER NOT NULL REFERENCES user (id),
  image_id INTEGER NOT NULL REFERENCES image (id),
  lane INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  run_after REAL NOT NULL DEFAULT 0,  -- 0: may run at once; else waits until then (retry delay)
  expires_at REAL,  -- end of its queue_ttl
  attempt INTEGER NOT NULL DEFAULT 0,
  id TEXT NOT NULL UNIQUE,
  key TEXT NOT NULL,
  key_digest BLOB NOT NULL,
  created_at REAL NOT NULL,
  mode TEXT NOT NULL,
  file TEXT,  -- blob of its handler or script; `spec` holds all that the user asked for (JSON)
  spec TEXT NOT NULL,
  retries INTEGER NOT NULL,
  user_failures INTEGER NOT NULL DEFAULT 0,
  infra_failures INTEGER NOT NULL DEFAULT 0,
  cancel_requested INTEGER NOT NULL DEFAULT 0,
  retry_of TEXT,
  payload_kind TEXT NOT NULL,
  payload_size INTEGER NOT NULL,
  payload_blob TEXT,
  worker_id TEXT REFERENCES worker (id),  -- NULL while it waits and if its end was decided in the queue
  slot INTEGER,
  assigned_at REAL,
  started_at REAL,
  ended_at REAL,
  reason TEXT,
  attempt_reason TEXT,  -- why the last attempt ended, where that is not why the job ended (poison, cancelled)
  charged TEXT,
  exit_code INTEGER,
  failure TEXT,  -- JSON
  result_kind TEXT,
  result_size INTEGER NOT NULL DEFAULT 0,
  result_blob TEXT,
  UNIQUE (owner_id, key)
);
-- Claims walk `job_ready` in order. Jobs whose time has not come are in `job_delayed` alone, so that no claim ever steps
-- over thousands of them. state and run_after are in them so that counting a lane never needs the rows.
CREATE INDEX job_ready ON job (lane, priority DESC, seq, state, run_after) WHERE state = 'IN_QUEUE' AND run_after = 0;
CREATE INDEX job_delayed ON job (run_after, lane, state) WHERE state = 'IN_QUEUE' AND run_after > 0;
CREATE INDEX job_expiry ON job (expires_at) WHERE state = 'IN_QUEUE' AND expires_at IS NOT NULL;
CREATE INDEX job_held ON job (worker_id) WHERE state IN ('ASSIGNED', 'IN_PROGRESS');
CREATE INDEX job_owner ON job (owner_id);
CREATE INDEX job_without_result ON job (state) WHERE state IN ('FAILED', 'CANCELLED');
CREATE INDEX job_payload_blob ON job (payload_blob) WHERE payload_blob IS NOT NULL;
CREATE INDEX job_result_blob ON job (result_blob) WHERE result_blob IS NOT NULL;
CREATE INDEX job_file ON job (file) WHERE file IS NOT NULL;

CREATE TABLE payload (
  seq INTEGER PRIMARY KEY REFERENCES job (seq) ON DELETE CASCADE,
  data BLOB NOT NULL
);

CREATE TABLE result (
  seq INTEGER PRIMARY KEY REFERENCES job (seq) ON DELETE CASCADE,
  data BLOB NOT NULL
);

-- Ended attempts of jobs that were put back into the queue.
CREATE TABLE attempt (
  seq INTEGER NOT NULL REFERENCES job (seq) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  worker_id TEXT NOT NULL REFERENCES worker (id),
  assigned_at REAL NOT NULL,
  started_at REAL,
  ended_at REAL NOT NULL,
  reason TEXT NOT NULL,
  charged TEXT NOT NULL,
  exit_code INTEGER,
  failure TEXT,
  PRIMARY KEY (seq, number)
);

CREATE TABLE log_piece (
  seq INTEGER NOT NULL REFERENCES job (seq) ON DELETE CASCADE,
  attempt INTEGER NOT NULL,
  start INTEGER NOT NULL,  -- position of its first byte in the attempt's log
  data BLOB NOT NULL,
  PRIMARY KEY (seq, attempt, start)
);

-- Who may use which blob. The bytes are in the blob folder, once for all.
CREATE TABLE blob (
  sha256 TEXT NOT NULL,
  owner_id INTEGER NOT NULL REFERENCES user (id),
  size INTEGER NOT NULL,
  added_at REAL NOT NULL,
  PRIMARY KEY (sha256, owner_id)
) WITHOUT ROWID;
