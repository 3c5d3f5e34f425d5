"""The gateway's gRPC door, for exporters that speak nothing else. Imported only where its port is set."""
