"""Statistics of rewards, transitions and failures. Reading the log is `leyden.reading`."""
