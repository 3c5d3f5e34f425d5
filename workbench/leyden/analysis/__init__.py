"""Numbers about rewards and transitions for the one who runs the training. Pure; reading is `leyden.reading`."""
