"""Send large buffers beside a payload: in shared memory, or in the store of an engine."""
