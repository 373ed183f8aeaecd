-- What scavengers hold is entered at no weight: their GPU-seconds are counted and cost nothing.
ALTER TABLE ledger DROP CONSTRAINT ledger_weight_milli_check;
ALTER TABLE ledger ADD CONSTRAINT ledger_weight_milli_check CHECK (weight_milli >= 0);
