-- When the sender of a report says that a value changed: the report's own timestamp, null where it has none.
ALTER TABLE "values" ADD COLUMN reported_ms INTEGER;
ALTER TABLE history ADD COLUMN reported_ms INTEGER;
