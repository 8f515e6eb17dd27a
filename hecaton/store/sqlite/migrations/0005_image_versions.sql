-- What of an image an attempt ran in: its digest, or the id by which the worker's engine knows it.

ALTER TABLE job ADD COLUMN image_version TEXT;
ALTER TABLE attempt ADD COLUMN image_version TEXT;
