"""What the parts promise, measured: one file a bench, and the registry `evoscale bench` reads."""
