-- Windows in which nodes are for some projects alone have the name of the reservation; the body says for whom.
ALTER TABLE windows ADD COLUMN reservation TEXT;
CREATE INDEX windows_reserved ON windows (id) WHERE reservation IS NOT NULL;
