"""The gateway's routes on Starlette: HTTP in, handlers, HTTP out. Nothing is decided here."""
