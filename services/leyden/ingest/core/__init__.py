"""How an OTLP request becomes spans of one model: pure functions over decoded protobuf."""
