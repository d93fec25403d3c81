-- What triggers remember beyond being held: which side of a threshold, when quiet began, when they last ran. A trigger
-- that is not satisfied may have such facts, so since_ms can be empty now.
CREATE TABLE trigger_facts (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL,
    since_ms INTEGER, fired_ms INTEGER, meta TEXT NOT NULL,
    beyond INTEGER NOT NULL, changed_ms INTEGER, ran_ms INTEGER
) WITHOUT ROWID;
INSERT INTO trigger_facts SELECT name, kind, id, since_ms, fired_ms, meta, 0, NULL, NULL FROM holds;
DROP TABLE holds;
ALTER TABLE trigger_facts RENAME TO holds;
