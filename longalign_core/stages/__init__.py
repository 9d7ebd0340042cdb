"""The stage functions: each reads its inputs, calls a room, writes its product."""
