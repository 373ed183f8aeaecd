-- Windows in which nodes take no jobs. The body says which, when and why; those that are over or cancelled stay as a record.
CREATE TABLE windows (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id > 0),
    state TEXT NOT NULL CHECK (state IN ('planned', 'open', 'over', 'cancelled')),
    from_us INTEGER NOT NULL,
    until_us INTEGER NOT NULL CHECK (until_us > from_us),
    body TEXT NOT NULL
) STRICT;
CREATE INDEX windows_that_count ON windows (id) WHERE state IN ('planned', 'open');
