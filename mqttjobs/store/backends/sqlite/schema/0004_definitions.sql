-- A definition goes when every job up to the last that was made from it has gone: nothing needs to look through all jobs.
ALTER TABLE definitions ADD COLUMN last_uid INTEGER NOT NULL DEFAULT 0;
UPDATE definitions SET last_uid = coalesce((SELECT max(uid) FROM jobs), 0);
