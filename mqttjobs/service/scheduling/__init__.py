"""What starts operations: matches that may run or not, deadlines, schedules, and the one sleep."""
