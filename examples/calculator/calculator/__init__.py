"""The demo: an agent that solves word problems with a calculator, its tasks, and how it is judged."""
