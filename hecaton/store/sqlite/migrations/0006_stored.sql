-- How many bytes each user has stored, by what they are: kept up from now on, counted once here. A row of a job or a
-- batch counts as 1024 bytes and its spec; failures count as results.

CREATE TABLE stored (
  owner_id INTEGER PRIMARY KEY REFERENCES user (id),
  payloads INTEGER NOT NULL DEFAULT 0,
  results INTEGER NOT NULL DEFAULT 0,
  logs INTEGER NOT NULL DEFAULT 0,
  files INTEGER NOT NULL DEFAULT 0  -- uploads, and results that came as such
);

INSERT INTO stored (owner_id, payloads, results, logs, files)
WITH
  jobs AS (SELECT owner_id, sum(1024 + length(spec)) AS payloads, total(length(failure)) AS failures FROM job GROUP BY 1),
  batches AS (SELECT owner_id, sum(1024 + length(spec)) AS payloads FROM batch GROUP BY 1),
  inline AS (SELECT owner_id, sum(length(data)) AS size FROM payload JOIN job USING (seq) GROUP BY 1),
  results AS (SELECT owner_id, sum(length(data)) AS size FROM result JOIN job USING (seq) GROUP BY 1),
  attempts AS (SELECT owner_id, total(length(attempt.failure)) AS size FROM attempt JOIN job USING (seq) GROUP BY 1),
  logs AS (SELECT owner_id, sum(length(data)) AS size FROM log_piece JOIN job USING (seq) GROUP BY 1),
  files AS (SELECT owner_id, sum(size) AS size FROM blob GROUP BY 1)
SELECT user.id,
  coalesce(jobs.payloads, 0) + coalesce(batches.payloads, 0) + coalesce(inline.size, 0),
  CAST(coalesce(results.size, 0) + coalesce(jobs.failures, 0) + coalesce(attempts.size, 0) AS INTEGER),
  coalesce(logs.size, 0),
  coalesce(files.size, 0)
FROM user
  LEFT JOIN jobs ON jobs.owner_id = user.id
  LEFT JOIN batches ON batches.owner_id = user.id
  LEFT JOIN inline ON inline.owner_id = user.id
  LEFT JOIN results ON results.owner_id = user.id
  LEFT JOIN attempts ON attempts.owner_id = user.id
  LEFT JOIN logs ON logs.owner_id = user.id
  LEFT JOIN files ON files.owner_id = user.id;
