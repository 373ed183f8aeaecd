-- What scavengers hold is entered at no weight: their GPU-seconds are counted and cost nothing. SQLite cannot change a
-- check in place, so the table is made anew.
CREATE TABLE ledger_with_scavengers (
    seq INTEGER NOT NULL PRIMARY KEY CHECK (seq > 0),
    at_us INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('hold', 'release', 'charge', 'overuse', 'refund')),
    project TEXT NOT NULL,
    class TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    job_id INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    counter TEXT NOT NULL,
    from_us INTEGER NOT NULL,
    until_us INTEGER NOT NULL CHECK (until_us > from_us),
    account_us INTEGER NOT NULL,
    weight_milli INTEGER NOT NULL CHECK (weight_milli >= 0)
) STRICT;

INSERT INTO ledger_with_scavengers
SELECT seq, at_us, kind, project, class, amount, job_id, attempt, counter, from_us, until_us, account_us, weight_milli
FROM ledger ORDER BY seq;

DROP TABLE ledger;
ALTER TABLE ledger_with_scavengers RENAME TO ledger;
CREATE INDEX ledger_by_job ON ledger (job_id, seq);
CREATE INDEX ledger_by_project ON ledger (project, seq);
CREATE INDEX ledger_by_account ON ledger (account_us, seq);
