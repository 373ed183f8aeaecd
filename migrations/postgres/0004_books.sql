-- What was said of budgets: that a part of one is used, or is not any more. Amounts are normalised GPU time in its smallest
-- unit, as digits: they may have more than 64 bits.
CREATE TABLE quota_alerts (
    seq BIGINT NOT NULL PRIMARY KEY CHECK (seq > 0),
    at_us BIGINT NOT NULL,
    node TEXT NOT NULL,
    percent BIGINT NOT NULL CHECK (percent > 0),
    kind TEXT NOT NULL CHECK (kind IN ('passed', 'under', 'still')),
    from_us BIGINT NOT NULL,
    period TEXT NOT NULL,
    budget TEXT NOT NULL,
    carried TEXT NOT NULL,
    used TEXT NOT NULL
);
CREATE INDEX quota_alerts_by_node ON quota_alerts (node, percent, seq);

-- A start of the scheduler reads what ended within the memory of fair share, not all there ever was.
CREATE INDEX attempts_by_end ON attempts (ended_us) WHERE ended_us IS NOT NULL;

-- Where the entries of a period begin.
CREATE INDEX ledger_by_account ON ledger (account_us, seq);
