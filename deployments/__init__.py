"""Recipes and what operating them needs."""
