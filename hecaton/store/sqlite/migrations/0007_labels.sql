-- By what jobs are found: their tags, and under an empty key their names. What a job has of them stands in its spec.

CREATE TABLE label (
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  seq INTEGER NOT NULL REFERENCES job (seq) ON DELETE CASCADE,
  PRIMARY KEY (key, value, seq)
) WITHOUT ROWID;
CREATE INDEX label_job ON label (seq);
