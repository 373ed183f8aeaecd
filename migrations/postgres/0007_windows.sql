-- Windows in which nodes take no jobs. The body says which, when and why; those that are over or cancelled stay as a record.
CREATE TABLE windows (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id > 0),
    state TEXT NOT NULL CHECK (state IN ('planned', 'open', 'over', 'cancelled')),
    from_us BIGINT NOT NULL,
    until_us BIGINT NOT NULL CHECK (until_us > from_us),
    body TEXT NOT NULL
);
CREATE INDEX windows_that_count ON windows (id) WHERE state IN ('planned', 'open');
