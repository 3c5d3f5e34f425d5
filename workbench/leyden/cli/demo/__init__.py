"""`leyden demo`: the whole loop on this machine, watched from outside through topics and the gateway."""
