"""The gateway's HTTP routes (Starlette): they parse requests, call handlers and write replies."""
