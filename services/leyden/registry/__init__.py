"""registry: a checkpoint becomes a version with its lineage, and the newest version is promoted."""
