-- Options that an image has for jobs that ask for nothing else (JSON as that of a job's spec), and which of them an
-- attempt was given.

ALTER TABLE image ADD COLUMN defaults TEXT;
ALTER TABLE job ADD COLUMN defaults TEXT;
ALTER TABLE attempt ADD COLUMN defaults TEXT;
