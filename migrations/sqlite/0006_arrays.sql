-- An array is one job with the numbers behind it up to array_last for its tasks. A task that has become a job of its own
-- names its array, and its specification is the array's.
ALTER TABLE jobs ADD COLUMN array_id INTEGER;
ALTER TABLE jobs ADD COLUMN array_last INTEGER;
CREATE INDEX jobs_by_array ON jobs (array_id, id) WHERE array_id IS NOT NULL;
CREATE INDEX jobs_by_array_last ON jobs (array_last) WHERE array_last IS NOT NULL;
-- What people submitted: without the tasks of arrays.
CREATE INDEX jobs_submitted ON jobs (id) WHERE array_id IS NULL;
