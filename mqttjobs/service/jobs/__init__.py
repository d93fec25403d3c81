"""Jobs: made, run, recorded, and their events published."""
