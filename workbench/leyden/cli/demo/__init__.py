"""`leyden demo`: the whole loop on this machine, observed through topics and the gateway."""
