-- What the GPUs of an attempt did, as JSON; null: nothing is known of it.
ALTER TABLE attempts ADD COLUMN measured TEXT;
-- When its owner was told that its GPUs do nothing; null: not told.
ALTER TABLE attempts ADD COLUMN idle_told_us INTEGER;
