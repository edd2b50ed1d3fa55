"""Spans of OpenTelemetry: envelopes say how a span is written, dialects what its attributes mean."""
