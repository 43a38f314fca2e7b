"""Where processes run: the only place that spawns, signals, sleeps and reads the clock."""
