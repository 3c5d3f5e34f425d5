"""The script in which an answer's code runs. Standard library only: its interpreter knows nothing of Leyden."""
