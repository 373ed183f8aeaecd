-- How the hardware of a node stands; null: nothing is known of it.
ALTER TABLE nodes ADD COLUMN health TEXT;
-- Circuit breakers of automatic draining, by what they are of.
CREATE TABLE breakers (
    scope TEXT NOT NULL PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;
-- What happened to a node, the newest first.
CREATE INDEX events_of_node ON events (node, seq) WHERE node IS NOT NULL;
