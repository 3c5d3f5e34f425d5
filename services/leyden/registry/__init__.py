"""The registry service: registers each checkpoint as a version with its lineage, and promotes the newest version."""
