-- Batches. Counters are kept with each item that ends, so that showing a batch never counts a million rows.

CREATE TABLE batch (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,  -- the batch's index
  id TEXT NOT NULL UNIQUE,
  owner_id INTEGER NOT NULL REFERENCES user (id),
  image_id INTEGER NOT NULL REFERENCES image (id),
  name TEXT NOT NULL,
  spec TEXT NOT NULL,  -- what all items share (JSON)
  key TEXT NOT NULL,
  key_digest BLOB NOT NULL,
  created_at REAL NOT NULL,
  size INTEGER NOT NULL DEFAULT 0,
  closed INTEGER NOT NULL DEFAULT 0,
  finished INTEGER NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0,
  cancelled INTEGER NOT NULL DEFAULT 0,
  may_pause INTEGER NOT NULL,
  paused TEXT,  -- why, or NULL
  cancel_requested INTEGER NOT NULL DEFAULT 0,
  sweep_at INTEGER,  -- position up to which a pause, resumption or cancellation has been carried out; NULL: to the end
  retry_of TEXT,
  UNIQUE (owner_id, key)
);
CREATE INDEX batch_sweep ON batch (seq) WHERE sweep_at IS NOT NULL;
CREATE INDEX batch_owner ON batch (owner_id);

CREATE TABLE batch_failure (
  batch INTEGER NOT NULL REFERENCES batch (seq) ON DELETE CASCADE,
  reason TEXT NOT NULL,
  message TEXT NOT NULL,
  count INTEGER NOT NULL,
  example TEXT NOT NULL,
  PRIMARY KEY (batch, reason, message)
) WITHOUT ROWID;

ALTER TABLE job ADD COLUMN batch INTEGER REFERENCES batch (seq);
ALTER TABLE job ADD COLUMN item INTEGER;  -- its position in the batch, from 0
ALTER TABLE job ADD COLUMN ended_as INTEGER;  -- the how many-th of the batch's items it was to end, from 1

CREATE INDEX job_batch ON job (batch, item) WHERE batch IS NOT NULL;
CREATE INDEX job_batch_end ON job (batch, ended_as) WHERE ended_as IS NOT NULL;
-- Waiting jobs of paused batches have run_after = -1: neither job_ready nor job_delayed contains them.
CREATE INDEX job_withheld ON job (batch) WHERE state = 'IN_QUEUE' AND run_after < 0;
