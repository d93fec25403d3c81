-- What the keys of a trigger remember is one JSON object, by key, so that a new key needs no new column. {"@ms": n} is a
-- time in it.
CREATE TABLE trigger_memory (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL,
    since_ms INTEGER, fired_ms INTEGER, meta TEXT NOT NULL, memory TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO trigger_memory
SELECT name, kind, id, since_ms, fired_ms, meta, json_patch(json_patch(
    iif(beyond, '{"above":true}', '{}'),
    iif(changed_ms IS NULL, '{}', json_object('debounce', json_object('@ms', changed_ms)))),
    iif(ran_ms IS NULL, '{}', json_object('throttle', json_object('@ms', ran_ms))))
FROM holds;
DROP TABLE holds;
ALTER TABLE trigger_memory RENAME TO holds;
