"""credit: turns finished rollouts into token-exact training sequences with returns and advantages."""
