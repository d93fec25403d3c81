"""Jobs on other machines: assignments, deadlines, roll-outs, and the messages of agents."""
