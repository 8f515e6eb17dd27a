-- Why a worker gets nothing new although it is connected.

ALTER TABLE worker ADD COLUMN drained INTEGER NOT NULL DEFAULT 0;
ALTER TABLE worker ADD COLUMN quarantine TEXT;  -- why, or NULL
ALTER TABLE worker ADD COLUMN quarantined_until REAL NOT NULL DEFAULT 0;
