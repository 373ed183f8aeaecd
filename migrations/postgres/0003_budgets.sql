-- Every line of the ledger says which time it is about, by which weight, and in which account it counts. Lines from
-- before have the weight of one and count where their attempt began.

ALTER TABLE ledger DROP CONSTRAINT ledger_kind_check;
ALTER TABLE ledger ADD CONSTRAINT ledger_kind_check
    CHECK (kind IN ('hold', 'release', 'charge', 'overuse', 'refund'));

ALTER TABLE ledger ADD COLUMN from_us BIGINT;
ALTER TABLE ledger ADD COLUMN until_us BIGINT;
ALTER TABLE ledger ADD COLUMN account_us BIGINT;
ALTER TABLE ledger ADD COLUMN weight_milli BIGINT NOT NULL DEFAULT 1000 CHECK (weight_milli > 0);
ALTER TABLE ledger ALTER COLUMN weight_milli DROP DEFAULT;

UPDATE ledger SET from_us = coalesce(attempts.leased_us, line.at_us - 1),
    until_us = greatest(coalesce(attempts.ended_us, line.at_us), coalesce(attempts.leased_us, line.at_us - 1) + 1)
FROM ledger AS line
LEFT JOIN attempts ON attempts.job_id = line.job_id AND attempts.number = line.attempt
WHERE line.seq = ledger.seq;

-- Months begin in Korea, nine hours ahead of UTC.
UPDATE ledger SET account_us = (extract(epoch FROM date_trunc('month',
    timestamp '1970-01-01' + (from_us / 1000000 + 32400) * interval '1 second'))::bigint - 32400) * 1000000;

ALTER TABLE ledger ALTER COLUMN from_us SET NOT NULL;
ALTER TABLE ledger ALTER COLUMN until_us SET NOT NULL;
ALTER TABLE ledger ALTER COLUMN account_us SET NOT NULL;
ALTER TABLE ledger ADD CHECK (until_us > from_us);
