-- An image that nobody has registered is that of the user who uses it: each has his own of that name. Registered ones
-- have no owner. `used_at` is that of an own one, exact to a day.

ALTER TABLE image ADD COLUMN owner_id INTEGER REFERENCES user (id);
ALTER TABLE image ADD COLUMN used_at REAL NOT NULL DEFAULT 0;

DROP INDEX image_name;
CREATE UNIQUE INDEX image_name ON image (name, coalesce(owner_id, 0)) WHERE deleted = 0;
CREATE INDEX image_owner ON image (owner_id) WHERE owner_id IS NOT NULL;
