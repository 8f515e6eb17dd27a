-- As whom, on the machines, a user's jobs write into their folders. NULL: no admin has said.

ALTER TABLE user ADD COLUMN uid INTEGER;
