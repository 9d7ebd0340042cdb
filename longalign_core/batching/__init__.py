"""Batching: encoding to the token store, packing, batch plans, what they cost, and their report."""
