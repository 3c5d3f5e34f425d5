"""Programs that measure. Not timed tests: the suite checks that they run, people read the numbers."""
