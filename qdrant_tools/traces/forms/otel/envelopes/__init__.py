"""A row in which a tool, a store or a cloud keeps spans of OpenTelemetry -> raw spans."""
