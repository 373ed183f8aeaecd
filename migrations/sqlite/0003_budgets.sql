-- Every line of the ledger says which time it is about, by which weight, and in which account it counts. SQLite cannot
-- change a check in place, so the table is made anew. Lines from before have the weight of one and count where their
-- attempt began.

CREATE TABLE ledger_with_accounts (
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
    weight_milli INTEGER NOT NULL CHECK (weight_milli > 0)
) STRICT;

-- Months begin in Korea, nine hours ahead of UTC.
INSERT INTO ledger_with_accounts
SELECT ledger.seq, ledger.at_us, ledger.kind, ledger.project, ledger.class, ledger.amount, ledger.job_id,
    ledger.attempt, ledger.counter, coalesce(attempts.leased_us, ledger.at_us - 1),
    max(coalesce(attempts.ended_us, ledger.at_us), coalesce(attempts.leased_us, ledger.at_us - 1) + 1),
    (unixepoch(coalesce(attempts.leased_us, ledger.at_us) / 1000000 + 32400, 'unixepoch', 'start of month') - 32400)
        * 1000000,
    1000
FROM ledger LEFT JOIN attempts ON attempts.job_id = ledger.job_id AND attempts.number = ledger.attempt
ORDER BY ledger.seq;

DROP TABLE ledger;
ALTER TABLE ledger_with_accounts RENAME TO ledger;
CREATE INDEX ledger_by_job ON ledger (job_id, seq);
CREATE INDEX ledger_by_project ON ledger (project, seq);
