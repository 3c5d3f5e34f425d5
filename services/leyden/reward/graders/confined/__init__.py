"""The script that runs an answer's code. Standard library only, because its interpreter cannot import Leyden."""
