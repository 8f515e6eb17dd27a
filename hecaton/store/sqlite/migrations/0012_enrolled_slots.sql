-- How many slots a worker may use: those of its first connection, until an admin lets it use more. NULL: none yet.

ALTER TABLE worker ADD COLUMN slots INTEGER;
