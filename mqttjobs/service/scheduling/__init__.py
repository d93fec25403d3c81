"""What is due by time: pending triggers, silences, schedules, and moments such as sunset."""
