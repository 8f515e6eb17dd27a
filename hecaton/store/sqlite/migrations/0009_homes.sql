-- Where each user's password was right, and when last: what others try with his name keeps him out nowhere of these.

CREATE TABLE home (
  owner_id INTEGER NOT NULL REFERENCES user (id),
  network TEXT NOT NULL,  -- an IPv4 address, or the /64 of one of IPv6
  used_at REAL NOT NULL,
  PRIMARY KEY (owner_id, network)
) WITHOUT ROWID;
